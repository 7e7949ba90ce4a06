"""What it costs to verify a ledger: a million closed rows, in seconds, rows a second and growth of the peak memory.

    python -m benchmarks.verify [ROWS] [JOBS]

The ledger is made as an agent makes it: windows of 300 s of jobs that come and go, the node's own among them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wattribute.agent.core.model import CPU_NS_SLOT, SLOTS, TERM_SLOT, energy_slot
from wattribute.agent.ledger.batch import Batch, Close, JobRow, dump
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.schema import NODE_KEY
from wattribute.agent.ledger.writer import Ledger

S = 1_000_000_000
START_NS = 1_700_000_000 * S
AT_ONCE = 20
"""Jobs that run at the same time."""
SPENT = {
    energy_slot("cpu", "direct", "measured"): ("cpu", 4_100_000),
    energy_slot("cpu", "idle", "measured"): ("cpu", 900_000),
    energy_slot("dram", "direct", "measured"): ("dram", 700_000),
    energy_slot("gpu", "direct", "measured"): ("gpu", 90_000_000),
    TERM_SLOT["operation"]: ("", 12_345_678),
    TERM_SLOT["cooling"]: ("", 2_345_678),
    TERM_SLOT["hardware"]: ("", 345_678),
    CPU_NS_SLOT: ("", 123_456_789),
}
ROWS_PER_CLOSE = 4
META = {"job": {"product_id": "bench", "role": "use"}, "taxes": []}
NODE_NAMES = [[domain, "node.measured"] for domain in ("cpu", "dram", "gpu")]
VERIFY = """
import json, resource, sys, time
from pathlib import Path
from wattribute.agent.ledger.reader import read_only
with read_only(Path(sys.argv[1])) as reader:
    reader.heads()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    problems = reader.verdict().problems
    seconds = time.perf_counter() - began
    print(json.dumps([seconds, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(problems)]))
"""


def make(state_dir: Path, rows: int, jobs: int) -> None:
    """A ledger with about so many rows of windows, of so many jobs."""
    ledger = Ledger.open(state_dir, node_id="bench", boot_id="boot", clock_unix_ns=lambda: START_NS)
    windows = max(1, rows // ((AT_ONCE + 1) * ROWS_PER_CLOSE))
    per_job = max(1, windows * AT_ONCE // jobs)
    totals: dict[str, list[int]] = {}
    node = {"cpu": 0, "dram": 0, "gpu": 0}
    for window in range(windows):
        now = START_NS + (window + 1) * 300 * S
        described, closes, forgotten = [], [], []
        for lane in range(AT_ONCE):
            key = f"job-{lane}-{(window + lane) // per_job}"
            first = key not in totals
            values = totals.setdefault(key, [0] * SLOTS)
            for slot, (domain, amount) in SPENT.items():
                values[slot] += amount + window % 97
                if domain:
                    node[domain] += amount + window % 97
            if first:
                described.append(JobRow.of(key, values, META, since_unix_ns=now - 300 * S))
            closes.append(Close.of(key, now, values, '{"operation_ng_per_kwh":480000000000}'))
            if (window + 1 + lane) // per_job != (window + lane) // per_job:
                forgotten.append(key)
        whole = list(node.values())
        described.append(JobRow.of(NODE_KEY, whole, {"names": NODE_NAMES}))
        closes.append(Close.of(NODE_KEY, now, whole))
        books = {"node_energy_uj": [[d, "x", "measured", uj] for d, uj in node.items()], "unattributed_uj": []}
        batch = Batch(
            seq=window + 1,
            at_unix_ns=now,
            jobs=described,
            closes=closes,
            forget=forgotten,
            state={"books": dump(books)},
        )
        while not ledger.submit(batch):
            time.sleep(0.0005)
        for key in forgotten:
            del totals[key]
    ledger.close()


def main() -> None:
    rows, jobs = (
        int(sys.argv[place]) if len(sys.argv) > place else default for place, default in ((1, 10**6), (2, 10**4))
    )
    with tempfile.TemporaryDirectory() as folder:
        state_dir = Path(folder)
        began = time.perf_counter()
        make(state_dir, rows, jobs)
        with read_only(state_dir) as reader:
            found = sum(head.rows for head in reader.heads())
        size = (state_dir / "ledger.db").stat().st_size
        print(f"made {found} rows in {time.perf_counter() - began:.0f} s, {size / 1e6:.0f} MB")
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, "-c", VERIFY, str(state_dir)],
                capture_output=True,
                text=True,
                check=True,
                env=os.environ,
            )
            seconds, before, after, problems = json.loads(done.stdout)
            print(
                f"verified in {seconds:.2f} s, {found / seconds:,.0f} rows/s, peak memory {before / 1024:.1f} -> "
                f"{after / 1024:.1f} MiB, {problems} problems"
            )


if __name__ == "__main__":
    main()
