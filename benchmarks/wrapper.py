"""What the wrapper costs a training script: import, and start + stop of a job, beside CodeCarbon's tracker.

    python -m benchmarks.wrapper

Each row is the median of fresh processes, or of pairs of calls inside one; ratios are the thing to rely on.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMED_IMPORT = "import time; t = time.perf_counter(); import {}; print((time.perf_counter() - t) * 1e3)"
PAIRS = """
import json, time, wattribute
def pair(i):
    began = time.perf_counter()
    job = wattribute.job(f"bench-{i}")
    job.start()
    job.stop()
    return (time.perf_counter() - began) * 1e3
first = pair(0)
print(json.dumps([first, *(pair(i) for i in range(1, 200))]))
"""
CODECARBON = """
import json, time
from codecarbon import OfflineEmissionsTracker
def pair():
    began = time.perf_counter()
    tracker = OfflineEmissionsTracker(country_iso_code="USA", save_to_file=False, log_level="critical")
    tracker.start()
    tracker.stop()
    return (time.perf_counter() - began) * 1e3
print(json.dumps([pair() for _ in range(6)]))
"""


def output_of(code: str, env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def import_ms(module: str, env: dict[str, str]) -> float:
    return statistics.median(float(output_of(TIMED_IMPORT.format(module), env)) for _ in range(9))


def start_agent(folder: Path, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable,
        "-m",
        "wattribute",
        "agent",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
        str(folder / "state"),
    ]
    agent = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    while not Path(env["WATTRIBUTE_AGENT__SOCKET"]).exists():
        time.sleep(0.02)
    return agent


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = {
            **os.environ,
            "WATTRIBUTE_AGENT__SOCKET": str(folder / "nobody"),
            "XDG_STATE_HOME": str(folder / "home"),
        }
        served = {**alone, "WATTRIBUTE_AGENT__SOCKET": str(folder / "agent.sock")}
        ours_ms = import_ms("wattribute", alone)
        rows = [("import wattribute", ours_ms, ours_ms), ("import codecarbon", import_ms("codecarbon", alone), ours_ms)]
        agent = start_agent(folder, served)
        try:
            first, *later = json.loads(output_of(PAIRS, served))
        finally:
            agent.terminate()
            agent.wait()
        base = statistics.median(later)
        rows += [("job() start + stop, agent, first in a process", first, base), ("  later ones, median", base, base)]
        rows.append(("  later ones, 95th of 100", statistics.quantiles(later, n=20)[-1], base))
        first, *later = json.loads(output_of(PAIRS, alone))
        rows += [
            ("job() start + stop, in-process, first", first, base),
            ("  later ones, median", statistics.median(later), base),
        ]
        first, *later = json.loads(output_of(CODECARBON, alone))
        rows += [
            ("CodeCarbon start + stop, first", first, base),
            ("  later ones, median", statistics.median(later), base),
        ]
    print(f"{'':48}{'ms':>10}{'ratio':>9}")
    for what, took_ms, against_ms in rows:
        print(f"{what:48}{took_ms:10.2f}{took_ms / against_ms:8.1f}x")


if __name__ == "__main__":
    main()
