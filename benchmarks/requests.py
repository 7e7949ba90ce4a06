"""What counting a request costs a server, beside prometheus_client; and whether two processes flat out lose any.

    python -m benchmarks.requests [--json] [--seconds 2] [SECTION ...]

Path: ns of CPU per begin + end in a loop, the loop subtracted, least of rounds that take turns (the others have what
else the machine did in them). Middleware and reporting: see there. Flat out: two processes that share an account,
counted against what each did. Memory: the peak before and after a million requests. Ratios are the thing to rely on.
"""

import argparse
import json
import os
import resource
import select
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.middleware import middleware_costs
from benchmarks.reporting import reporting_costs
from prometheus_client import CollectorRegistry, Counter, Histogram

from wattribute.agent.meter.account_file import AccountFile
from wattribute.agent.meter.tally import Tally

ROUNDS, TIMES = 60, 5000
REQUESTS = 1_000_000
THEIRS = "prometheus_client, counter + histogram"
Loop = Callable[[int], object]


def new_tally(path: Path) -> Tally:
    tally = Tally(AccountFile.open(path))
    for tenant in ("", "acme"):
        tally.begin(tenant).end({"token": 1})
    return tally


def our_loops(path: Path) -> dict[str, Loop]:
    """Each a tally of its own, so that none learns from another."""
    bare, unit, tenant, within, receipt = (new_tally(path) for _ in range(5))

    def begin_end(times: int) -> None:
        for _ in range(times):
            request = bare.begin()
            request.end()

    def one_unit(times: int) -> None:
        for _ in range(times):
            request = unit.begin()
            request.end({"token": 250})

    def a_tenant(times: int) -> None:
        for _ in range(times):
            request = tenant.begin("acme")
            request.end()

    def in_with(times: int) -> None:
        for _ in range(times):
            with within.request():
                pass

    def with_receipt(times: int) -> None:
        for _ in range(times):
            with receipt.request(receipt=True):
                pass
        receipt.ended.clear()

    return {
        "begin + end": begin_end,
        "  with a tenant": a_tenant,
        "  with one unit": one_unit,
        "  as `with`": in_with,
        "  as `with`, with a receipt": with_receipt,
    }


def their_loops() -> dict[str, Loop]:
    registry = CollectorRegistry()
    counter = Counter("requests", "Requests.", ["tenant"], registry=registry)
    tokens = Counter("tokens", "Tokens.", ["tenant"], registry=registry)
    histogram = Histogram("latency_seconds", "Latency.", ["tenant"], registry=registry)
    kept_counter, kept_histogram = counter.labels("acme"), histogram.labels("acme")
    clock = time.perf_counter

    def labelled(times: int) -> None:
        for _ in range(times):
            began = clock()
            counter.labels("acme").inc()
            histogram.labels("acme").observe(clock() - began)

    def labelled_unit(times: int) -> None:
        for _ in range(times):
            began = clock()
            counter.labels("acme").inc()
            tokens.labels("acme").inc(250)
            histogram.labels("acme").observe(clock() - began)

    def kept(times: int) -> None:
        for _ in range(times):
            began = clock()
            kept_counter.inc()
            kept_histogram.observe(clock() - began)

    return {
        THEIRS: labelled,
        "  and a counter of tokens": labelled_unit,
        "  with kept children": kept,
    }


def path_costs(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """ns of CPU per request, by way of counting."""

    def empty(times: int) -> None:
        for _ in range(times):
            pass

    loops = {"": empty, **our_loops(folder / "account"), **their_loops()}
    least = dict.fromkeys(loops, float("inf"))
    for _ in range(ROUNDS):
        for name, loop in loops.items():
            began_ns = time.process_time_ns()
            loop(TIMES)
            least[name] = min(least[name], (time.process_time_ns() - began_ns) / TIMES)
    nothing = least.pop("")
    return {name: ns - nothing for name, ns in least.items()}


def flat_out(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Two workers of one account for `--seconds`, a third process reporting: requests per second, and what is lost."""
    path = folder / "flat-out"
    reading, writing = os.pipe()
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            try:
                serve(path, options.seconds, writing)
            finally:
                os._exit(0)
        children.append(child)
    os.close(writing)
    file = AccountFile.open(path)
    assert file.is_reporter()
    reports, told_ns, did, open_ends = 0, 0, 0, 2
    while open_ends:
        ready, _, _ = select.select([reading], [], [], 0.1)
        if ready:
            line = os.read(reading, 16)
            did += int(line or b"0")
            open_ends -= 1
        report = file.report()
        file.reported(report)
        told_ns += sum(row[3] for row in report.shares)
        reports += 1
    for child in children:
        os.waitpid(child, 0)
    counted = sum(row.requests for row in file.report().served)
    return {
        "requests_per_s": did / options.seconds,
        "did": did,
        "lost": did - counted,
        "reports": reports,
        "busy_part": told_ns / (2 * options.seconds * 1e9),
    }


def serve(path: Path, seconds: float, writing: int) -> None:
    """As many requests as there is time for; says how many, and dies without a word to the account."""
    tally = Tally(AccountFile.open(path))
    did, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in range(100):
            tally.begin("acme").end({"token": 250})
        did += 100
    os.write(writing, f"{did:16d}".encode())
    os.kill(os.getpid(), 9)


def peak_memory(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Peak memory of this process in MB around a million requests, 1000 of them at once."""
    tally = new_tally(folder / "memory")

    def many(times: int) -> None:
        for _ in range(times // 1000):
            for request in [tally.begin("acme") for _ in range(1000)]:
                request.end({"token": 250})

    many(10_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many(REQUESTS)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"before_mb": before / 1024, "after_mb": after / 1024, "requests": REQUESTS}


Section = Callable[[argparse.Namespace, Path], Mapping[str, float]]
SECTIONS: dict[str, tuple[str, Section, str]] = {
    "path": ("ns of CPU per request, and of prometheus_client's", path_costs, THEIRS),
    "middleware": (
        "ns of CPU per request beyond the application, and of prometheus_client's",
        middleware_costs,
        "  prometheus_client",
    ),
    "flat-out": ("two processes, one account", flat_out, ""),
    "memory": ("peak memory", peak_memory, ""),
    "reporting": ("the meter's thread and the agent", reporting_costs, ""),
}
"""Title, function, and what the others are shown in parts of."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.requests", description="Cost of counting a request")
    parser.add_argument("section", nargs="*", help=f"of {', '.join(SECTIONS)}; all, unless named")
    parser.add_argument("--seconds", type=float, default=2.0, help="of the run flat out")
    parser.add_argument("--json", action="store_true", help="all figures, for programs")
    options = parser.parse_args()
    unknown = sorted(set(options.section) - SECTIONS.keys())
    if unknown:
        parser.error(f"no section {unknown[0]!r}: {', '.join(SECTIONS)}")

    found: dict[str, Mapping[str, float]] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        for section in options.section or SECTIONS:
            found[section] = SECTIONS[section][1](options, Path(name))
    if options.json:
        print(json.dumps(found))
        return
    for section, figures in found.items():
        print(f"{SECTIONS[section][0]}:")
        for what, value in figures.items():
            base = figures.get(SECTIONS[section][2])
            part = f"{value / base:8.2f}" if base else ""
            print(f"  {what:52}{value:14,.2f}" if value < 100 else f"  {what:52}{value:14,.0f}{part}")


if __name__ == "__main__":
    main()
