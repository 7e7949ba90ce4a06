"""Real work with a known truth: each mode burns CPU and prints, at its end, the CPU seconds that it all took.

python -S burners.py steady SECONDS DUTY | children SECONDS | daemons SECONDS | brief MILLISECONDS
"""

import os
import resource
import sys
import time


def burn(cpu_s: float) -> None:
    until_s = time.process_time() + cpu_s
    while time.process_time() < until_s:
        pass


def fork(cpu_s: float) -> int:
    pid = os.fork()
    if pid == 0:
        burn(cpu_s)
        os._exit(0)
    return pid


def steady(seconds: float, duty: float) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        burn(0.02 * duty)
        time.sleep(0.02 * (1 - duty))


def children(seconds: float) -> None:
    """One child of 20 ms after another."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        os.waitpid(fork(0.02), 0)


def daemons(seconds: float) -> None:
    """Processes that fork twice and leave their parent: nobody here waits for them; they write what they took."""
    reading, writing = os.pipe()
    count = 0
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        child = os.fork()
        if child == 0:
            os.setsid()
            if os.fork() == 0:
                burn(0.1)
                os.write(writing, b"%d\n" % time.process_time_ns())
                os._exit(0)
            os._exit(0)
        os.waitpid(child, 0)
        count += 1
        time.sleep(0.1)
    text = b""
    while text.count(b"\n") < count:
        text += os.read(reading, 4096)
    time.sleep(0.1)
    took_s(sum(int(line) for line in text.split()) / 1e9)


def took_s(more_s: float = 0.0) -> None:
    own, gone = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(own.ru_utime + own.ru_stime + gone.ru_utime + gone.ru_stime + more_s, flush=True)
    os._exit(0)


if __name__ == "__main__":
    mode, *texts = sys.argv[1:]
    numbers = [float(text) for text in texts]
    if mode == "steady":
        steady(*numbers)
    elif mode == "children":
        children(*numbers)
    elif mode == "daemons":
        daemons(*numbers)
    else:
        burn(numbers[0] / 1000)
    took_s()
