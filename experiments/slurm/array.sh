#!/bin/bash
# Models x seeds, a fit each: sbatch array.sh run.toml FOLDER, which gets additive-0.h5, additive-1.h5, ...
#SBATCH --job-name=vihier
#SBATCH --array=0-5
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
source "${VIHIER_SLURM:-$SLURM_SUBMIT_DIR/experiments/slurm}/until_done.sh"
models=(additive gene_lineage crossed)
model=${models[$((SLURM_ARRAY_TASK_ID % ${#models[@]}))]}
seed=$((SLURM_ARRAY_TASK_ID / ${#models[@]}))
until_done vihier fit --config "$1" --resume --model "$model" --seed "$seed" --out "$2/$model-$seed.h5"
