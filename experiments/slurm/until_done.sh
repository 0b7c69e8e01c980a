# Sourced by the batch scripts beside it: runs a fit as a step of the job, through any number of time limits.
#
# SIGUSR1, which Slurm sends some minutes before the limit, goes on to the fit, which writes a checkpoint and ends with
# status 75. The job is then queued again, and `--resume` goes on from there to the same posterior.

until_done() {
    local asked="" code=0 step
    srun "$@" &
    step=$!
    trap 'asked=yes; kill -USR1 "$step" 2>/dev/null || true' USR1
    # A trapped signal ends `wait` before the step ends.
    while :; do
        asked=""
        code=0
        wait "$step" || code=$?
        [ -n "$asked" ] || break
    done
    trap - USR1
    if [ "$code" -eq 75 ]; then
        echo "stopped before the time limit: job $SLURM_JOB_ID is queued again"
        scontrol requeue "$SLURM_JOB_ID"
        return 0
    fi
    return "$code"
}
