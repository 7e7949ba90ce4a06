#!/bin/sh
# slurm.conf: Epilog=/etc/slurm/wattribute/epilog.sh   (root, on each node of a job; see docs/slurm.md)
# Forgets what the prolog told. On the job's first node a process in the background, which the node doesn't wait for,
# writes the AdminComment: leave --comment out where epilog_slurmctld.sh does, or where there is no slurmdbd.
PATH=/opt/wattribute/bin:/usr/local/bin:/usr/bin:/bin
export PATH
timeout --kill-after=1 2 wattribute slurm epilog --comment >/dev/null
exit 0
