#!/bin/sh
# slurm.conf: EpilogSlurmctld=/etc/slurm/wattribute/epilog_slurmctld.sh   (SlurmUser, on the controller; docs/slurm.md)
# For a fleet with a PostgreSQL: the AdminComment of a job is the sum over all its nodes. In the background: slurmctld
# waits for nothing here.
PATH=/opt/wattribute/bin:/usr/local/bin:/usr/bin:/bin
export PATH
timeout --kill-after=1 2 wattribute slurm comment --background >/dev/null
exit 0
