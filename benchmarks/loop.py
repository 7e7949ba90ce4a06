"""For how long each thing that the agent's loop does holds it, on a node full of jobs and products.

    python -m benchmarks.loop [--jobs 5000] [--running 100] [--products 10000]

The jobs are held, `running` of them run; power comes from a powercap double, processes are real. Milliseconds of the
loop's own CPU time, the worst of some calls: nobody else is answered while one of them lasts.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.doubles.node_bench import Bench, Worker
from tests.doubles.powercap import PowercapTree

from wattribute.agent import wire
from wattribute.agent.archive import open_archive
from wattribute.agent.config import load
from wattribute.agent.control import Deferred
from wattribute.agent.daemon import GC_OBJECTS
from wattribute.agent.dispatch import Dispatch
from wattribute.agent.requests import (
    Health,
    JobEnd,
    JobReceipt,
    Jobs,
    JobStart,
    JobUpdate,
    Peer,
    Request,
)
from wattribute.agent.site import Site
from wattribute.exporters.messages import Making, RequestHead, Response

TIMES = 5
HELD = "[export]\nhold_s = 86400\nmax_jobs = 20000\n"


def event(number: int, **more: object) -> dict[str, object]:
    """One registered product; every tenth inherits from the one before."""
    parents = {f"product-{number - 1}": "0.25"} if number % 10 == 9 else {}
    fields = {"event": "add", "id": f"product-{number}", "at": "2026-01-01T00:00:00Z", "by": "root", "kind": "model"}
    masses = [10**12, 2 * 10**12, 3 * 10**12]
    return {**fields, "parents": parents, "epc_ng": masses, "lifetime_s": 10**8, "owners": ["root"], **more}


class Held:
    """Times by name: the worst of several."""

    def __init__(self) -> None:
        self.worst_ms: dict[str, float] = {}

    def time(self, name: str, call: Callable[[], object]) -> None:
        began = time.thread_time()
        call()
        self.add(name, (time.thread_time() - began) * 1e3)

    def add(self, name: str, took_ms: float) -> None:
        self.worst_ms[name] = max(took_ms, self.worst_ms.get(name, 0.0))


def ask(dispatch: Dispatch, held: Held, name: str, request: Request, peer: Peer) -> None:
    """One request, encoded as its answer would be; an answer that comes in pieces counts by its longest."""

    def answer() -> None:
        found = dispatch(request, peer)
        if isinstance(found, Deferred):
            found.on_answer(lambda fields: answers.append(wire.answer(1, fields)))
        else:
            answers.append(wire.answer(1, found))

    answers: list[bytes] = []
    began = time.thread_time()
    held.time(name, answer)
    while not answers:
        held.time(name, getattr(dispatch, "work", dispatch.settle))
    if (whole_ms := (time.thread_time() - began) * 1e3) > 1.5 * held.worst_ms[name]:
        held.add(f"{name}, until it is answered", whole_ms)


def register(folder: Path, events: Sequence[Mapping[str, Any]]) -> None:
    """Products, as `wattribute product add` would append them."""
    with open_archive(load(folder / "wattribute.toml", {}, {}).config) as archive:
        archive.append(events, after=archive.last_event())


def measure(folder: Path, bench: Bench, options: argparse.Namespace) -> dict[str, float]:
    """Fill a node and time what its loop does; the worst of some calls by name, ms."""
    held, workers = Held(), [Worker() for _ in range(4)]
    try:
        node = bench.open(HELD)
        dispatch, site = Dispatch(node, interval_s=1.0, version="0"), Site(node)
        bench.tick()
        fill(bench, [worker.pid for worker in workers], options)
        for worker in workers:
            worker.burn()
        gc.collect()
        gc.freeze()  # as the agent does with what lives for good
        for _ in range(TIMES):
            bench.tick()
            node.flush()
            scrape(held, site, "/metrics")
        peer = Peer(workers[0].pid, 0, 0)
        requests: list[tuple[str, Request]] = [
            ("job.start", JobStart(id=1, job_id="new", member="m", product_id="product-3")),
            ("job.update", JobUpdate(id=1, job_id="new", labels={"a": "b"})),
            ("job.receipt", JobReceipt(id=1, job_id="new")),
            ("job.end", JobEnd(id=1, job_id="new", member="m")),
            ("jobs", Jobs(id=1)),
            ("health", Health(id=1)),
        ]
        for _ in range(TIMES):
            for name, request in requests:
                ask(dispatch, held, name, request, peer)
            tick(held, bench, "tick")
            node.flush()
        changes(held, bench, site, folder, options.products)
        return held.worst_ms
    finally:
        for worker in workers:
            worker.kill()
        bench.close()


def fill(bench: Bench, pids: Sequence[int], options: argparse.Namespace) -> None:
    """Jobs that have ended and are held, and some that run."""
    for number in range(options.jobs):
        pid = pids[number % len(pids)]
        start = JobStart(id=1, job_id=f"job-{number}", member="m", pid=pid, product_id=f"product-{number % 50}")
        bench.node.start(start, Peer(pid, 0, 0))
        if number >= options.running:
            bench.node.end(JobEnd(id=1, job_id=f"job-{number}", member="m"), Peer(pid, 0, 0))
        if number % 500 == 499:
            bench.tick()


def tick(held: Held, bench: Bench, name: str) -> None:
    """A tick, and what the loop does after it."""
    bench.clock.pass_(1.0)
    bench.package.package.add(50_000_000)
    held.time(name, lambda: bench.node.tick(patience_ns=10**9))
    held.time("show", bench.node.show)


def scrape(held: Held, site: Site, name: str) -> None:
    """A page as a Prometheus asks for it: the longest of its pieces."""
    first = "" if any(known.startswith(name) for known in held.worst_ms) else ", the first"
    route, head = site.routes()["/metrics"], RequestHead("GET", "/metrics", "", {"accept-encoding": "gzip"}, True)
    answers: list[Response | Making] = []
    began = time.thread_time()
    held.time(f"{name}{first}", lambda: answers.append(route(head)))
    while isinstance(answer := answers[-1], Making):
        held.time(f"{name}{first}", partial(_go_on, answer, answers))
    held.add(f"{name}{first}, until it is answered", (time.thread_time() - began) * 1e3)


def _go_on(making: Making, answers: list[Response | Making]) -> None:
    answers.append(making.go_on() or making)


def changes(held: Held, bench: Bench, site: Site, folder: Path, products: int) -> None:
    """The registry is filled, then changed by one product, and heard of: beside the ticks, so that it may take some."""
    register(folder, [event(number) for number in range(products)])
    for what, count in (("a registry of all products", products), ("one product more", products + 1)):
        bench.hear()
        began = time.monotonic()
        while len(bench.node.books.taxes.products) < count:
            tick(held, bench, f"tick while {what} is heard of")
            time.sleep(0.05)
        held.add(f"(until {what} is in force)", (time.monotonic() - began) * 1e3)
        for _ in range(3):
            tick(held, bench, f"tick after {what}")
            bench.node.flush()
            scrape(held, site, f"/metrics after {what}")
        register(folder, [event(products)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--running", type=int, default=100)
    parser.add_argument("--products", type=int, default=10_000)
    options = parser.parse_args()
    gc.set_threshold(GC_OBJECTS)
    with tempfile.TemporaryDirectory() as name, PowercapTree(Path(name, "sys")) as tree:
        tree.say_cpu()
        for what, worst_ms in measure(Path(name), Bench(Path(name), tree.add_package()), options).items():
            print(f"{what:70}{worst_ms:9.1f} ms")


if __name__ == "__main__":
    main()
