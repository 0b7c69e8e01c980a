#!/bin/bash
# A fit on all GPUs of one node or more, a worker each: sbatch several_gpus.sh run.toml [options of vihier fit]
#SBATCH --job-name=vihier
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --mem=64G
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
here="${VIHIER_SLURM:-$SLURM_SUBMIT_DIR/experiments/slurm}"
source "$here/until_done.sh"
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
until_done bash "$here/launch.sh" "$first" "${SLURM_GPUS_ON_NODE:-1}" --config "$1" --resume "${@:2}"
