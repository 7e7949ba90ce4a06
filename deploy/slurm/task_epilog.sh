#!/bin/sh
# slurm.conf: TaskEpilog=/etc/slurm/wattribute/task_epilog.sh   (the job's user, after each task; see docs/slurm.md)
# The receipt at the end of a batch job's output. Slurm shows what a TaskEpilog writes to stderr, not to stdout.
case "${SLURM_STEP_ID-}" in
    '' | 4294967291) ;;  # the batch script itself
    *) exit 0 ;;
esac
PATH=/opt/wattribute/bin:/usr/local/bin:/usr/bin:/bin
export PATH
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP
if receipt=$(timeout --kill-after=1 2 wattribute slurm receipt 2>/dev/null); then
    printf '\n%s\n' "$receipt" >&2
fi
exit 0
