"""A fleet of nodes that don't exist: each one's page, by the real exporter, at /node/NUMBER/metrics of one process.

    python -m tests.doubles.many_nodes --nodes 1000 --jobs 20 --late 10     # prints the ports it listens on

Every number grows with time, each at a rate of its own, and every page adds up as an agent's does. One job, BIG, runs
on all nodes. The last `late` nodes answer 503 until GET /admit; GET /freeze stops growth, and answers with the truth.
"""

import argparse
import json
import selectors
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from wattribute.agent.core.model import (
    CPU_NS_SLOT,
    REASONS,
    SHARE_KINDS,
    SLOTS,
    SM_NS_SLOT,
    TERM_SLOT,
    TERMS,
    CarbonIntensity,
    DomainKind,
    Job,
    JobTotals,
    ProductTotals,
    Quality,
    Reason,
    Snapshot,
    SourceHealth,
    Term,
    energy_slot,
)
from wattribute.agent.core.units import NS_PER_S
from wattribute.exporters.messages import RequestHead, Response
from wattribute.exporters.negotiation import accepts_gzip, choose_format
from wattribute.exporters.prometheus import CONTENT_TYPE, PrometheusPage
from wattribute.exporters.web import Route, WebServer

BIG = "fleet-pretrain-7b"
BIG_PRODUCT = "foundation-7b"
PRODUCTS = 20
PER_NODE = 4  # products of a node's other jobs
TEAMS = ("vision", "speech", "search", "robotics")
DEVICES: tuple[tuple[DomainKind, str, Quality], ...] = (
    ("cpu", "package-0", "measured"),
    ("dram", "package-0-dram", "measured"),
    *(("gpu", f"GPU-6d9f2a10-4c1b-4e0e-9a53-{number:012x}", "measured") for number in range(4)),
)
KINDS = tuple(dict.fromkeys((kind, quality) for kind, _, quality in DEVICES))
NODE_TERMS: tuple[Term, ...] = ("operation", "cooling", "hardware")
SETTLING_S = 1.0
NODES_A_SERVER = 40  # who scrapes keeps a connection to each, and a server has 64


@dataclass
class Node:
    """One node's jobs and its page."""

    number: int
    jobs: list[Job]
    page: PrometheusPage = field(default_factory=PrometheusPage)

    def snapshot(self, unix_ns: int, elapsed_ms: int) -> Snapshot:
        """All totals after so much growth: whole microjoules and nanograms, jobs and the rest summing to the node's."""
        totals = [self._totals(place, job, elapsed_ms) for place, job in enumerate(self.jobs)]
        rest_uj: dict[tuple[DomainKind, Reason], int] = {
            (kind, reason): (11 + step) * elapsed_ms * (self.number % 7 + 1)
            for kind, _ in KINDS
            for step, reason in enumerate(REASONS)
            if reason != "unallocated" or kind == "gpu"
        }
        rest_ng: dict[tuple[Term, Reason], int] = {
            (term, reason): (3 + step) * elapsed_ms for term in NODE_TERMS for step, reason in enumerate(REASONS)
        }
        return Snapshot(
            taken_at_unix_ns=unix_ns,
            version="0.1.0",
            node_id=f"node-{self.number}",
            jobs=totals,
            products=self._products(elapsed_ms),
            node_energy_uj=dict(self._node_uj(totals, rest_uj)),
            unattributed_uj=rest_uj,
            node_co2e_ng={
                term: sum(one.values[TERM_SLOT[term]] for one in totals)
                + sum(ng for (of, _), ng in rest_ng.items() if of == term)
                for term in NODE_TERMS
            },
            unattributed_ng=rest_ng,
            sources=[
                SourceHealth(
                    name=name,
                    up=True,
                    read_ns=250_000,
                    last_read_unix_ns=unix_ns,
                    failures={},
                    gap_ns=0,
                    wraps=0,
                    resets=0,
                )
                for name in ("rapl", "nvml", "process", "ledger")
            ],
            pue=1.2,
            intensity=CarbonIntensity(
                gco2e_per_kwh=480.0,
                valid_from_unix_ns=0,
                valid_until_unix_ns=None,
                zone="DE",
                provider="static",
                method="average, lifecycle",
            ),
            ledger_created_unix_ns=(1_700_000_000 + self.number) * NS_PER_S,
            registry_hash="2c2cd74cb6703619",
            agent_tick_ns=1_500_000 + self.number,
            agent_ticks=elapsed_ms // 1000,
            agent_cpu_ns=3_000 * elapsed_ms,
            agent_resident_bytes=41 << 20,
            agent_energy_uj=60 * elapsed_ms,
            agent_late_ns=(100_000, 200_000, 5_000_000),
            attribution={("cpu", ""): "powercap, split by CPU time", ("gpu", ""): "energy counter, split by SM time"},
            policy={"idle": "reserved", "overhead": "usage"},
            idle_uw={("cpu", "", "observed"): 37_000_000},
        )

    def _totals(self, place: int, job: Job, elapsed_ms: int) -> JobTotals:
        values = [0] * SLOTS
        for kind, quality in KINDS:
            for step, share in enumerate(SHARE_KINDS):
                # Watts to hundreds of watts in mW: a different odd rate for each node, job and share.
                rate = (17 + 13 * step + 29 * place + self.number % 97) * (40 if kind == "gpu" else 7)
                values[energy_slot(kind, share, quality)] = rate * elapsed_ms
        for step, term in enumerate(TERMS):
            values[TERM_SLOT[term]] = (23 + 5 * step + 3 * place + self.number % 11) * elapsed_ms
        values[CPU_NS_SLOT] = (500_000 + place) * elapsed_ms
        values[SM_NS_SLOT] = (300_000 + place) * elapsed_ms
        return JobTotals(job=job, values=values, gpus=(DEVICES[2 + place % 4][1],), running=job.ended_unix_ns is None)

    def _node_uj(
        self, totals: list[JobTotals], rest_uj: Mapping[tuple[DomainKind, Reason], int]
    ) -> Iterator[tuple[tuple[DomainKind, str, Quality], int]]:
        for kind, quality in KINDS:
            whole = sum(one.values[energy_slot(kind, share, quality)] for one in totals for share in SHARE_KINDS)
            whole += sum(uj for (of, _), uj in rest_uj.items() if of == kind)
            devices = [device for of, device, _ in DEVICES if of == kind]
            for number, device in enumerate(devices):
                part = whole // len(devices)
                yield (kind, device, quality), part if number else whole - part * (len(devices) - 1)

    def _products(self, elapsed_ms: int) -> list[ProductTotals]:
        names = dict.fromkeys(job.product_id for job in self.jobs)
        return [
            ProductTotals(
                id=name,
                kind="model",
                epc_own_ng=10**12,
                epc_inherited_ng=None,
                billed_ng={"product": 7 * elapsed_ms},
                untaxed_ng={"product": 0},
                running_jobs=sum(job.product_id == name and job.ended_unix_ns is None for job in self.jobs),
                jobs_total=sum(job.product_id == name for job in self.jobs),
                weight_ppm_ns=10**12 * elapsed_ms,
            )
            for name in names
        ]


def node(number: int, nodes: int, jobs: int) -> Node:
    """A node whose first job is BIG; of the others every fourth has ended."""
    began_ns = time.time_ns() - 3600 * NS_PER_S
    big = Job(id=BIG, product_id=BIG_PRODUCT, phase="training", nodes=nodes, user="ml", origin="slurm",
              started_unix_ns=began_ns)  # fmt: skip
    rest = [
        Job(
            id=f"cluster-{number * jobs + place}",
            product_id=f"product-{(number + place % PER_NODE) % PRODUCTS}",
            phase="training" if place % 2 else "inference",
            user=TEAMS[number % len(TEAMS)],
            origin="slurm",
            started_unix_ns=began_ns + place * NS_PER_S,
            ended_unix_ns=began_ns + 60 * NS_PER_S if place % 4 == 0 else None,
        )
        for place in range(1, jobs)
    ]
    return Node(number, [big, *rest])


class Fleet(Mapping[str, Route]):
    """The routes of all nodes, and the two commands."""

    def __init__(self, nodes: int, jobs: int, late: int) -> None:
        self._nodes = [node(number, nodes, jobs) for number in range(nodes)]
        self._late = late
        self._began_ns = time.monotonic_ns()
        self._frozen_ms: int | None = None

    def __getitem__(self, path: str) -> Route:
        if path in ("/admit", "/freeze"):
            return self._admit if path == "/admit" else self._freeze
        number = path.removeprefix("/node/").removesuffix("/metrics")
        if not number.isdecimal() or int(number) >= len(self._nodes):
            raise KeyError(path)
        return lambda request: self._metrics(int(number), request)

    def __iter__(self) -> Iterator[str]:
        return (f"/node/{one.number}/metrics" for one in self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def elapsed_ms(self) -> int:
        """How long numbers have been growing; an hour at the start."""
        if self._frozen_ms is not None:
            return self._frozen_ms
        return 3_600_000 + (time.monotonic_ns() - self._began_ns) // 1_000_000

    def truth(self) -> dict[str, int]:
        """uJ of BIG and of all nodes, over the fleet, and what BIG's late nodes have of it."""
        found = {"big_uj": 0, "late_uj": 0, "nodes_uj": 0}
        for one in self._nodes:
            snapshot = one.snapshot(0, self.elapsed_ms)
            mine = sum(
                snapshot.jobs[0].values[energy_slot(kind, share, quality)]
                for kind, quality in KINDS
                for share in SHARE_KINDS
            )
            found["big_uj"] += mine
            found["late_uj"] += mine if one.number >= len(self) - self._late else 0
            found["nodes_uj"] += sum(snapshot.node_energy_uj.values())
        return found

    def _metrics(self, number: int, request: RequestHead) -> Response:
        if number >= len(self) - self._late:
            return Response(status=503, body=b"nothing measured yet\n")
        page = self._nodes[number].page
        page.publish(self._nodes[number].snapshot(time.time_ns(), self.elapsed_ms))
        form = choose_format(request.headers.get("accept", ""))
        compressed = accepts_gzip(request.headers.get("accept-encoding", ""))
        return Response(
            content_type=CONTENT_TYPE[form],
            body=page.page(form, compressed=compressed),
            headers=(("Content-Encoding", "gzip"),) if compressed else (),
        )

    def _admit(self, _request: RequestHead) -> Response:
        self._late = 0
        return Response(body=b"ok\n")

    def _freeze(self, _request: RequestHead) -> Response:
        self._frozen_ms = self.elapsed_ms
        return Response(body=json.dumps(self.truth()).encode())


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.doubles.many_nodes", description=main.__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=20, help="of each node, the one on all nodes included")
    parser.add_argument("--late", type=int, default=0, help="how many nodes are missing until GET /admit")
    options = parser.parse_args()
    selector = selectors.DefaultSelector()
    fleet = Fleet(options.nodes, options.jobs, options.late)
    servers = [WebServer(selector, "127.0.0.1", 0, fleet) for _ in range(0, options.nodes, NODES_A_SERVER)]
    print(*[server.port for server in servers], flush=True)
    while True:
        for key, mask in selector.select(timeout=SETTLING_S):
            key.data(mask)
        for server in servers:
            server.expire(time.monotonic())


if __name__ == "__main__":
    main()
