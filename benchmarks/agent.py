"""What measuring costs: the agent beside others, all in one run, on the same load.

    python -m benchmarks.agent [--seconds 60] [--processes 500] [--jobs 100] [--gpus 8]

The load is `processes` busy processes in `jobs` registered jobs; power comes from the test doubles (a powercap tree
and a stand-in NVML). CPU time is each contestant's own, by its CPU clock. Ratios are the thing to rely on.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.doubles.nvml import MissingCompiler, NvmlDouble
from tests.doubles.nvml import Process as GpuProcess

from wattribute.agent.client import Client

HERE = Path(__file__).parent
CODECARBON = """
import time
from codecarbon import OfflineEmissionsTracker
settings = {"save_to_file": False, "log_level": "critical", "measure_power_secs": 1}
tracker = OfflineEmissionsTracker(country_iso_code="USA", **settings)
tracker.start()
print("up", flush=True)
time.sleep(1e6)
"""


@dataclass
class Contestant:
    name: str
    process: "subprocess.Popen[bytes]"
    url: str | None = None
    began_ns: int = 0

    @property
    def cpu_ns(self) -> int:
        return time.clock_gettime_ns((~self.process.pid << 3) | 2)

    @property
    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scrape(url: str) -> float:
    """One gzipped scrape; milliseconds."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()
    return (time.perf_counter() - began) * 1e3


def wait_for(url: str) -> None:
    for _ in range(400):
        try:
            scrape(url)
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{url} doesn't answer")


@contextlib.contextmanager
def load(jobs: int, each: int) -> Iterator[list[int]]:
    """Busy processes in `jobs` trees; yields the root pids."""
    parents = [
        subprocess.Popen(
            [sys.executable, "-S", str(HERE / "load.py"), str(each)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(jobs)
    ]
    try:
        yield [int(parent.stdout.readline()) for parent in parents if parent.stdout]
    finally:
        for parent in parents:
            parent.terminate()
        for parent in parents:
            parent.wait()


def start_agent(folder: Path, sys_tree: Path, interval_s: float, env: dict[str, str]) -> tuple[Contestant, Client]:
    port = free_port()
    home = folder / f"agent-{interval_s}"
    home.mkdir()
    environment = {**env, "WATTRIBUTE_AGENT__INTERVAL_S": str(interval_s)}
    command = [sys.executable, "-m", "wattribute", "agent", "--listen", f"127.0.0.1:{port}"]
    places = ["--socket", str(home / "s"), "--state-dir", str(home / "state"), "--sys", str(sys_tree)]
    process = subprocess.Popen([*command, *places], env=environment, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/metrics"
    wait_for(url)
    client = Client.find({"WATTRIBUTE_AGENT__SOCKET": str(home / "s")})
    if client is None:
        raise SystemExit("the agent's socket isn't there")
    return Contestant(f"wattribute, {1 / interval_s:g} Hz", process, url), client


def contestants(folder: Path, sys_tree: Path, env: dict[str, str], roots: list[int]) -> list[Contestant]:
    """Everything that is measured, already running."""
    found = []
    for interval_s in (1.0, 0.1):
        agent, client = start_agent(folder, sys_tree, interval_s, env)
        for number, root in enumerate(roots):
            client.call("job.start", 5.0, job_id=f"job-{number}", member="bench", pid=root)
        found.append(agent)
    port = free_port()
    naive = subprocess.Popen([sys.executable, str(HERE / "naive.py"), str(port), "1"])
    found.append(Contestant("naive psutil + prometheus_client, 1 Hz", naive, f"http://127.0.0.1:{port}/metrics"))
    exporter = shutil.which("prometheus-node-exporter")
    if exporter:
        port = free_port()
        process = subprocess.Popen([exporter, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL)
        found.append(Contestant("node exporter (scrapes only)", process, f"http://127.0.0.1:{port}/metrics"))
    with contextlib.suppress(FileNotFoundError):
        process = subprocess.Popen(
            [sys.executable, "-c", CODECARBON], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        if process.stdout and process.stdout.readline():
            found.append(Contestant("CodeCarbon, machine mode, 1 Hz", process))
    for contestant in found:
        if contestant.url:
            wait_for(contestant.url)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--scrape-every", type=float, default=15)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        roots = stack.enter_context(load(arguments.jobs, arguments.processes // arguments.jobs))
        env = dict(os.environ)
        try:
            (folder / "nvml").mkdir()
            driver = stack.enter_context(NvmlDouble(folder / "nvml", arguments.gpus))
            env.update(driver.env)
            for gpu, root in zip(driver.gpus, roots, strict=False):
                gpu.power_w = 300
                gpu.processes(GpuProcess(pid=root, memory_bytes=2**30, sm_percent=50))
        except MissingCompiler as missing:
            print(f"without GPUs: {missing}")
        double = [
            sys.executable,
            "-m",
            "tests.doubles.powercap",
            str(folder / "sys"),
            "--packages",
            "2",
            "--dram-w",
            "5",
        ]
        tree = subprocess.Popen([*double, "--idle-w", "40", "--w-per-core", "20"], stdout=subprocess.DEVNULL)
        stack.callback(tree.wait)
        stack.callback(tree.send_signal, signal.SIGINT)
        while not (folder / "sys/class/powercap").exists():
            time.sleep(0.05)
        running = contestants(folder, folder / "sys", env, roots)
        for contestant in running:
            stack.callback(contestant.process.wait)
            stack.callback(contestant.process.terminate)
        time.sleep(2)
        measure(running, arguments.seconds, arguments.scrape_every)


def measure(running: list[Contestant], seconds: float, scrape_every_s: float) -> None:
    """CPU and memory of all at once over a time, with a gzipped scrape now and then."""
    for contestant in running:
        contestant.began_ns = contestant.cpu_ns
    began_s = time.monotonic()
    scrapes: dict[str, list[float]] = {}
    while (left_s := seconds - (time.monotonic() - began_s)) > 0:
        for contestant in running:
            if contestant.url:
                scrapes.setdefault(contestant.name, []).append(scrape(contestant.url))
        time.sleep(max(0.0, min(scrape_every_s, left_s)))
    passed_ns = (time.monotonic() - began_s) * 1e9
    first = None
    print(f"{'':42}{'CPU, % of a core':>17}{'ratio':>8}{'resident MB':>13}{'scrape ms':>11}")
    for contestant in running:
        percent = (contestant.cpu_ns - contestant.began_ns) / passed_ns * 100
        first = percent if first is None else first
        times = scrapes.get(contestant.name)
        middle = f"{statistics.median(times):11.1f}" if times else f"{'-':>11}"
        print(f"{contestant.name:42}{percent:17.3f}{percent / first:7.1f}x{contestant.resident_mb:13.1f}{middle}")


if __name__ == "__main__":
    main()
