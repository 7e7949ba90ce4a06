"""One job's processes in a cgroup: `python -S crowd.py CGROUP.PROCS PROCESSES busy|lazy`; they end with stdin."""

import os
import select
import sys
import time


def main() -> None:
    with open(sys.argv[1], "w") as procs:  # noqa: PTH123 - pathlib isn't worth its import a thousand times
        procs.write("0")
    parent = os.getpid()
    for number in range(int(sys.argv[2]) - 1):
        if os.fork() == 0:
            burn_ns = 5_000_000 if number == 0 and sys.argv[3] == "busy" else 0
            while os.getppid() == parent:
                until_ns = time.thread_time_ns() + burn_ns
                while time.thread_time_ns() < until_ns:
                    pass
                time.sleep(0.5)
            os._exit(0)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    select.select([sys.stdin], [], [])


if __name__ == "__main__":
    main()
