"""What metered requests cost beside their path: the reporter's thread, the agent, and what the thread delays.

    python -m benchmarks.requests reporting [--seconds 10]

A process serves so many requests per second, counted and with receipts, beside a real agent on a powercap double: CPU
time of the reporter's thread while it serves, and of the agent beyond what it takes without a metered job. `late` is by
how much a thread that sleeps 1 ms wakes too late, in one of a thousand times and at the worst; beside the same process
without a meter.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

RATES = (1_000, 10_000)
WAYS = ("bare", "counted", "with receipts")
CONFIGURATION = """
[collectors]
nvml = "off"
modelled = "off"
[attribution]
cpu_idle_w = 10
"""


@contextmanager
def agent(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A real one, on places of its own: where its page is, and the environment of its jobs."""
    from benchmarks.agent import free_port, wait_for

    (folder / "config.toml").write_text(CONFIGURATION)
    (folder / "runtime").mkdir(mode=0o700)
    places = {"WATTRIBUTE_CONFIG": "config.toml", "WATTRIBUTE_AGENT__SOCKET": "s", "WATTRIBUTE_AGENT__STATE_DIR": "d"}
    places |= {"XDG_STATE_HOME": "home", "XDG_RUNTIME_DIR": "runtime"}
    environment = {**os.environ, **{name: str(folder / place) for name, place in places.items()}}
    listen = f"127.0.0.1:{free_port()}"
    double = [sys.executable, "-m", "tests.doubles.powercap", str(folder / "sys")]
    command = [sys.executable, "-m", "wattribute", "agent", "--listen", listen, "--sys", str(folder / "sys")]
    processes = [subprocess.Popen(double, stdout=subprocess.DEVNULL)]
    try:
        while not (folder / "sys/class/powercap").exists():
            time.sleep(0.05)
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        wait_for(f"http://{listen}/metrics")
        yield f"http://{listen}/metrics", environment
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGINT)
            process.wait()


def agent_cpu_s(url: str) -> float:
    with urllib.request.urlopen(url, timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("wattribute_agent_cpu_seconds_total"):
                return float(line.split()[1])
    raise SystemExit("the agent doesn't tell its CPU time")


def reporting_costs(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """us of CPU per request and ms late, by rate and way."""
    found: dict[str, float] = {}
    with ExitStack() as stack:
        (home := folder / "reporting").mkdir()
        url, environment = stack.enter_context(agent(home))
        for rate in RATES:
            runs: dict[str, Mapping[str, float]] = {}
            for way in WAYS:
                before_s = agent_cpu_s(url)
                command = [sys.executable, "-m", "benchmarks.reporting", way, str(rate), str(options.seconds * 5)]
                answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
                runs[way] = {**json.loads(answer.stdout), "agent_s": agent_cpu_s(url) - before_s}
            bare = runs["bare"]
            for way in WAYS[1:]:
                run, name = runs[way], f"{rate}/s {way}"
                for whose in ("reporter_s", "agent_s"):
                    found[f"{name}: {whose[:-2]}, us"] = (run[whose] - bare[whose]) / run["requests"] * 1e6
                for late in ("late_thousandth_ms", "late_worst_ms"):
                    found[f"{name}: {late.replace('_', ' ')}"] = run[late]
                    found[f"{name}: {late[:-3].replace('_', ' ')}, ratio to bare"] = run[late] / bare[late]
                found[f"{name}: peak memory beyond bare, MB"] = run["peak_mb"] - bare["peak_mb"]
    return found


def reporter_cpu_s() -> float:
    """CPU time of the meter's thread in this process; 0 without one."""
    clocks = [time.pthread_getcpuclockid(one.ident or 0) for one in threading.enumerate() if "meter" in one.name]
    return sum(time.clock_gettime(clock) for clock in clocks)


def peak_mb() -> float:
    """Of this process since it was executed; getrusage tells of the one that it was forked from too."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def serve(way: str, rate: int, seconds: float) -> dict[str, float]:
    """Serves in steps of 1 ms, while another thread looks how late it wakes."""
    import wattribute

    meter = None if way == "bare" else wattribute.meter("benchmark", receipts=way == "with receipts").start()
    late: list[float] = []
    over = threading.Event()

    def sleeper() -> None:
        while not over.is_set():
            began = time.perf_counter()
            time.sleep(0.001)
            late.append(time.perf_counter() - began - 0.001)

    thread = threading.Thread(target=sleeper)
    thread.start()
    began_s, began_cpu_s, done = time.monotonic(), reporter_cpu_s(), 0
    while (now_s := time.monotonic()) < began_s + seconds:
        due = int((now_s - began_s) * rate)
        for _ in range(due - done):
            if meter is not None:
                meter.begin("acme").end({"token": 250})
        done = due
        time.sleep(0.001)
    spent_s = reporter_cpu_s() - began_cpu_s
    over.set()
    thread.join()
    if meter is not None:
        meter.stop()
    late.sort()
    return {
        "requests": done,
        "reporter_s": spent_s,
        "late_worst_ms": late[-1] * 1e3,
        "late_thousandth_ms": late[-len(late) // 1000] * 1e3,
        "peak_mb": peak_mb(),
    }


if __name__ == "__main__":
    print(json.dumps(serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
