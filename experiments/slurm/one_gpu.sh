#!/bin/bash
# A fit on one GPU: sbatch one_gpu.sh run.toml [options of vihier fit]
#SBATCH --job-name=vihier
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# Slurm runs a copy of this script, in the folder of the submission: that of the checkout, or VIHIER_SLURM says where.
source "${VIHIER_SLURM:-$SLURM_SUBMIT_DIR/experiments/slurm}/until_done.sh"
until_done vihier fit --config "$1" --resume "${@:2}"
