"""A load of many small busy processes: `python -S load.py PROCESSES` forks them, prints its pid, ends with stdin.

Each burns about 1 ms of CPU time twice a second, so that 500 of them keep one core busy and none is asleep for a tick.
"""

import os
import select
import sys
import time


def main() -> None:
    parent = os.getpid()
    for _ in range(int(sys.argv[1]) - 1):
        if os.fork() == 0:
            while os.getppid() == parent:
                until_ns = time.thread_time_ns() + 1_000_000
                while time.thread_time_ns() < until_ns:
                    pass
                time.sleep(0.5)
            os._exit(0)
    sys.stdout.write(f"{parent}\n")
    sys.stdout.flush()
    select.select([sys.stdin], [], [])


if __name__ == "__main__":
    main()
