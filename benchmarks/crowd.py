"""The processes of many jobs in cgroups: `python -S crowd.py FOLDER PROCESSES`; they end with stdin.

Each cgroup in FOLDER gets PROCESSES sleepers that wake twice a second; in every twentieth one works at 1 % of a core.
"""

import os
import select
import sys
import time


def live(parent: int, burn_ns: int) -> None:
    """Burn some CPU time twice a second for as long as the parent lives."""
    while os.getppid() == parent:
        until_ns = time.thread_time_ns() + burn_ns
        while time.thread_time_ns() < until_ns:
            pass
        time.sleep(0.5)


def main() -> None:
    parent, folder = os.getpid(), sys.argv[1]
    jobs = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    for number, path in enumerate(jobs):
        for member in range(int(sys.argv[2])):
            if os.fork() == 0:
                procs = os.open(f"{path}/cgroup.procs", os.O_WRONLY)
                os.write(procs, b"0")
                os.close(procs)
                live(parent, 5_000_000 if member == 0 and number % 20 == 0 else 0)
                os._exit(0)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    select.select([sys.stdin], [], [])


if __name__ == "__main__":
    main()
