"""A job of several processes: `python -S load.py PROCESSES` forks them, prints its pid, ends with stdin.

One works (about 1 % of a core, so that 100 such jobs keep one core busy), the others wake twice a second, as the
threads' keepers and data loaders of real jobs do.
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
    parent = os.getpid()
    for number in range(int(sys.argv[1]) - 1):
        if os.fork() == 0:
            live(parent, 5_000_000 if number == 0 else 10_000)
            os._exit(0)
    sys.stdout.write(f"{parent}\n")
    sys.stdout.flush()
    select.select([sys.stdin], [], [])


if __name__ == "__main__":
    main()
