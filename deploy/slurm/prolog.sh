#!/bin/sh
# slurm.conf: Prolog=/etc/slurm/wattribute/prolog.sh   (root, on each node of a job; see docs/slurm.md)
# Tells the agent what it can't read without root. Whatever happens here, the job starts.
PATH=/opt/wattribute/bin:/usr/local/bin:/usr/bin:/bin
export PATH
timeout --kill-after=1 2 wattribute slurm prolog >/dev/null
exit 0
