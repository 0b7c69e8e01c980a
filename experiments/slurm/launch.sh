# What each node runs: launch.sh FIRST_NODE WORKERS [options of vihier fit]
#
# SIGUSR1 goes on to the workers, which write a checkpoint and end; the launcher itself would die of it, and says of
# workers only that they failed, so that status 75 is given here.
set -uo pipefail
(
    trap '' USR1
    exec torchrun --nnodes "${SLURM_NNODES:-1}" --nproc-per-node "$2" --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d \
        --rdzv-endpoint "$1:$((20000 + SLURM_JOB_ID % 20000))" -m vihier fit "${@:3}"
) &
launcher=$!
stopped=""
trap 'asked=yes; pkill -USR1 -P "$launcher" || true' USR1
# A trapped signal ends `wait` before the launcher ends.
while :; do
    asked=""
    code=0
    wait "$launcher" || code=$?
    [ -n "$asked" ] || break
    stopped=yes
done
if [ -n "$stopped" ] && [ "$code" -ne 0 ]; then
    exit 75
fi
exit "$code"
