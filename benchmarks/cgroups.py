"""What a node full of found jobs costs: the agent over real cgroups, by cgroup counters alone.

    python -m benchmarks.cgroups [--seconds 30] [--jobs 1000] [--processes 3] [--interval 1]

Needs to make cgroups (root). Each job is a cgroup of sleeping processes that wake twice a second; one in twenty works
at 1 % of a core. Power comes from the powercap double. At 10 Hz (`--interval 0.1`) what counts is the lateness: how
long after its time a tick began, over the last 600 ticks, by the agent's own word.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.agent import Contestant, free_port, wait_for

HERE = Path(__file__).parent
TOPS = (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup/cpu,cpuacct"), Path("/sys/fs/cgroup"))


def top() -> Path:
    """Where the agent would look for cgroups."""
    for folder in TOPS:
        if (folder / "cpuacct.usage").exists() or (folder / "cgroup.controllers").exists():
            return folder
    raise SystemExit("no cgroup tree here")


@contextlib.contextmanager
def load(jobs: int, each: int) -> Iterator[Path]:
    """`jobs` cgroups of `each` processes; yields the folder that holds them."""
    folder = top() / f"wattribute-bench-{os.getpid()}"
    folder.mkdir()
    for number in range(jobs):
        (folder / f"job-{number:04}").mkdir()
    crowd = subprocess.Popen(
        [sys.executable, "-S", "-E", str(HERE / "crowd.py"), str(folder), str(each)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert crowd.stdout is not None
        crowd.stdout.readline()
        yield folder
    finally:
        crowd.communicate(b"")
        until_s = time.monotonic() + 20
        while list(folder.glob("*/")) and time.monotonic() < until_s:
            for group in folder.glob("*/"):
                with contextlib.suppress(OSError):
                    group.rmdir()
            time.sleep(0.2)
        folder.rmdir()


def value(page: str, name: str) -> float:
    """One sample without labels, or the sum over them."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith((name + " ", name + "{")))


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--interval", type=float, default=1.0)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        double = [sys.executable, "-m", "tests.doubles.powercap", str(folder / "sys"), "--packages", "2"]
        tree = subprocess.Popen(
            [*double, "--dram-w", "5", "--idle-w", "40", "--w-per-core", "20"], stdout=subprocess.DEVNULL
        )
        stack.callback(tree.wait)
        stack.callback(tree.send_signal, signal.SIGINT)
        groups = stack.enter_context(load(arguments.jobs, arguments.processes))
        config = folder / "wattribute.toml"
        config.write_text(
            f'[agent]\ninterval_s = {arguments.interval}\n[collectors]\nnvml = "off"\n[attribution]\ncpu_idle_w = 40\n'
            f'[[rule]]\nmatch = {{ cgroup = "/{groups.name}/*" }}\nproduct = "bench"\n'
        )
        port = free_port()
        command = [sys.executable, "-m", "wattribute", "agent", "--config", str(config), "--sys", str(folder / "sys")]
        command += ["--listen", f"127.0.0.1:{port}", "--socket", str(folder / "s")]
        command += ["--state-dir", str(folder / "state")]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        url = f"http://127.0.0.1:{port}/metrics"
        wait_for(url)
        agent = Contestant("wattribute", process, url)
        time.sleep(10)
        before, cpu_ns, began_s = get(url), agent.cpu_ns, time.monotonic()
        time.sleep(arguments.seconds)
        passed_s, used_ns, after = time.monotonic() - began_s, agent.cpu_ns - cpu_ns, get(url)
        running = value(after, "wattribute_job_running")
        ticks = value(after, "wattribute_agent_ticks_total") - value(before, "wattribute_agent_ticks_total")
        print(f"jobs found and running       {running:10.0f}")
        print(f"CPU, % of a core             {used_ns / passed_s / 1e7:10.3f}")
        print(f"resident MB                  {agent.resident_mb:10.1f}")
        print(f"ticks per second             {ticks / passed_s:10.2f}")
        for statistic in ("p50", "p95", "max"):
            name = f'wattribute_agent_tick_lateness_seconds{{statistic="{statistic}"}}'
            print(f"lateness, {statistic:4} ms            {value(after, name) * 1e3:10.2f}")


if __name__ == "__main__":
    main()
