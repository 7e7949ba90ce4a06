"""Data sheets as the command makes them, of figures that are awkward on purpose."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from wattribute.agent.core.lineage import book, lineage, recovery
from wattribute.agent.core.model import TERMS, Role, Term
from wattribute.agent.core.products import MICRO, Product, own_part
from wattribute.agent.core.provenance import Registry
from wattribute.agent.core.records import JobRecord, NodeRecord
from wattribute.agent.core.served_record import Billed, ServedRecord
from wattribute.agent.core.uncertainty import Uncertainty, bounds
from wattribute.exporters.report.sheet import Amortised, Costs, Group, Intensity, Made, Sheet

KG, S, DAY_S = 10**12, 10**9, 86_400
NOW = 1_790_000_000 * S
START = NOW - 400 * DAY_S * S
GRID = Intensity(
    gco2e_per_kwh=Decimal("56.04"),
    zone="FR",
    provider="electricitymaps",
    method="average, lifecycle",
    factor_type="lifecycle",
    quality="final",
    year=2025,
    source="a bundled table",
)


def job(
    job_id: str = "bert-ft-7",
    *,
    role: Role = "use",
    phase: str = "training",
    product_id: str = "bert-tuned",
    scale: int = 1,
    start: int = START,
    ended: int | None = START + 5 * 3600 * S,
) -> JobRecord:
    """A job whose terms are all there, and no two alike; `scale` makes it larger."""
    terms = {
        term: ng * scale
        for term, ng in zip(
            TERMS,
            (123_456_789_012, 9_876_543_211, 25_000_000_001, 3, 31_709_791_983, 7_654_321, 2_283_105_022),
            strict=True,
        )
    }
    taxes: dict[tuple[str, Term], int] = {
        ("iks-dallas", "platform"): terms["platform"],
        ("bert-tuned", "retraining"): terms["retraining"],
        ("iks-dallas", "overhead_hardware"): terms["overhead_hardware"],
        ("bert-tuned", "product"): terms["product"],
    }
    return JobRecord(
        id=job_id,
        product_id=product_id,
        uses=("iks-dallas",),
        role=role,
        phase=phase,
        user="ada",
        nodes=("gpu-1", "gpu-2"),
        expected_nodes=2,
        started_unix_ns=start,
        ended_unix_ns=ended,
        energy_uj={
            ("cpu", "direct", "measured"): 1_234_567_890_123 * scale,
            ("cpu", "idle", "measured"): 200_000_000_001 * scale,
            ("cpu", "overhead", "measured"): 30_000_000_007 * scale,
            ("dram", "direct", "modelled"): 98_765_432_101 * scale,
            ("gpu", "direct", "integrated"): 4_321_098_765_432 * scale,
            ("gpu", "idle", "integrated"): 1_000_000_000_009 * scale,
        },
        terms_ng=terms,
        taxes_ng=taxes,
        cpu_ns=3_723_000_000_001,
        sm_ns=17_000_000_000_000,
    )


def products() -> dict[str, Product]:
    """A tuned model with a lineage of three layers, one of whose ancestors nobody knows."""
    year = 365 * DAY_S
    return {
        one.id: one
        for one in (
            Product(id="web-text", kind="dataset", epc_own_ng=40 * KG, lifetime_s=5 * year, concurrency_ppm=10**6),
            Product(
                id="bert-base", kind="model", epc_own_ng=600 * KG, epc_low_ng=450 * KG, epc_high_ng=900 * KG,
                parents={"web-text": Fraction(1, 4)}, lifetime_s=3 * year, concurrency_ppm=10**6,
            ),
            Product(id="glue", kind="dataset", epc_own_ng=5 * KG, parents={"web-text": Fraction(1, 10)}),
            Product(
                id="bert-tuned", kind="model", version="2.1",
                epc_own_ng=12 * KG, epc_low_ng=9 * KG, epc_high_ng=20 * KG, lifetime_s=2 * year,
                parents={"bert-base": Fraction(1, 2), "glue": Fraction(1)}, runs_on=("iks-dallas",),
                deployed_unix_ns=START, concurrency_ppm=10**6, boundary="training and tuning, without people's travel",
            ),
            Product(id="bert-small", kind="model", epc_own_ng=KG, parents={"bert-tuned": Fraction(1, 5)}),
            Product(id="iks-dallas", kind="platform", epc_own_ng=1000 * KG, lifetime_s=6 * year, overhead_rate=1),
        )
    }  # fmt: skip


def uncertainty(one: JobRecord | Costs) -> Uncertainty:
    """Bounds of some costs, as wide as they usually are."""
    costs = Costs.of([one])
    return bounds(
        costs.terms_ng,
        costs.energy_by(2),
        taxes_ng=costs.taxes_ng,
        intensity_band=(Fraction(1, 2), Fraction(2)),
        pue_band=(Fraction(95, 100), Fraction(105, 100)),
        hardware_band=(Fraction(634, 1200), Fraction(2102, 1200)),
        epc_bands={"bert-tuned": (Fraction(3, 4), Fraction(3, 2)), "iks-dallas": (Fraction(1), Fraction(1))},
        declared={"iks-dallas"},
    )


def job_sheet(record: JobRecord | None = None, **changes: object) -> Sheet:
    """The sheet of a job, with bounds."""
    record = job() if record is None else record
    costs = Costs.of([record])
    sheet = Sheet(
        kind="job",
        id=record.id,
        version="1.2.3",
        made_unix_ns=NOW,
        total=costs,
        uncertainty=uncertainty(record),
        job=record,
        groups=(Group(role=record.role, phase=record.phase, costs=costs),),
        method={"cpu": "powercap, split by CPU time, idle 37 W configured", "gpu": "NVML energy counter"},
        policy={"idle": "reserved", "overhead": "usage"},
        included=("cpu", "dram", "gpu"),
        missing=("psu", "fans", "nic", "storage"),
        basis="daemon",
        intensity=GRID,
        pue=Decimal("1.08"),
        hardware=("8 x H100",),
        notes=("dram energy is modelled, not measured: no DRAM sensor",),
        runs=(record,),
    )
    return replace(sheet, **changes)  # type: ignore[arg-type]


def requests() -> ServedRecord:
    """Requests of twelve tenants whose names are awkward, with stages and some idle."""
    tenants = {
        name: Billed(
            units={"request": number * MICRO, "token": number * 1_000_500_001, "image.large": number},
            aborted=number % 2,
            energy_uj=1_234_567 * number,
            terms_ng={term: number * place for place, term in enumerate(TERMS, 1001)},
        )
        for number, name in enumerate(["", *(f"t{n}" for n in range(8)), "_other", "a|b", "<i>"], 1)
    }
    billed = Billed.of(tenants.values())
    prefill = replace(billed, units={}, aborted=0, energy_uj=billed.energy_uj // 3)
    return ServedRecord(
        product_id="bert-tuned",
        tenants=tenants,
        idle=Billed(energy_uj=7, terms_ng={"operation": 3, "product": 5}),
        stages={"prefill": prefill, "decode": replace(prefill, energy_uj=billed.energy_uj - prefill.energy_uj)},
    )


def product_sheet(known: dict[str, Product] | None = None) -> Sheet:
    """The sheet of a product with jobs of every role, an EPC, a lineage and a recovery."""
    known = products() if known is None else known
    made = [
        job("tune-1", role="creation", scale=40),
        job("tune-2", role="creation", phase="experimentation", scale=11),
        job("serve-1", role="use", phase="inference", scale=700),
        job("serve-2", role="use", phase="inference", scale=900),
        job("again", role="retraining", scale=6),
        job("keep", role="platform", phase="", scale=9),
    ]
    found = book(Registry(), made, known.values())
    groups = [
        Group(role=one.role, phase=one.phase, costs=Costs.of(job for job in made if (job.role, job.phase) == key))
        for one in made
        for key in [(one.role, one.phase)]
    ]
    groups = list({(group.role, group.phase): group for group in groups}.values())
    product, epc = found.products["bert-tuned"], found.epc["bert-tuned"]
    points = 12
    back = recovery(found, "bert-tuned", NOW)
    curve = [
        (START + (NOW - START) * at // points, back.recovered_ng * at * at // points**2) for at in range(points + 1)
    ]
    return job_sheet(
        made[0],
        kind="product",
        id="bert-tuned",
        job=None,
        total=Costs.of(made),
        uncertainty=uncertainty(Costs.of(made)),
        groups=tuple(groups),
        product=product,
        made=Made(
            own=epc.own,
            inherited=epc.brought,
            recovery=back,
            missing=found.missing("bert-tuned"),
            own_part=own_part("bert-tuned", found.products.values()),
            curve=tuple(curve),
        ),
        served=requests(),
        amortised=Amortised(
            in_force="time",
            unit="token",
            served_micro=requests().billed.units["token"],
            expected_micro=10**15,
            stock_ng=back.stock_ng,
            by_time_ng=back.expected_ng,
        ),
        lineage=lineage(found, "bert-tuned"),
        billed_ng={"retraining": 5, "product": back.recovered_ng},
        runs=tuple(made),
    )


def node_sheet() -> Sheet:
    """Two nodes whose jobs and unbilled rest add up to what they used."""
    record = job(scale=3)
    platform = job("keep", role="platform", phase="", scale=1)
    jobs = Costs.of([record, platform])
    idle_uj, idle_ng = 777_000_000_001, 5_000_000_007
    nodes = []
    for name, part in (("gpu-1", 3), ("gpu-2", 4)):
        energy_uj = {("cpu", "measured"): jobs.whole_uj * part // 7 + idle_uj}
        terms: dict[Term, int] = {"operation": jobs.term_ng("operation") * part // 7 + idle_ng}
        terms |= {term: jobs.term_ng(term) * part // 7 for term in ("cooling", "hardware")}
        nodes.append(
            NodeRecord(
                id=name,
                energy_uj=energy_uj,
                unattributed_uj={("cpu", "idle"): idle_uj},
                terms_ng=terms,
                unattributed_ng={("idle", "operation"): idle_ng},
            )
        )
    for term in ("operation", "cooling", "hardware"):  # what the division left goes to the last
        left = jobs.term_ng(term) + (2 * idle_ng if term == "operation" else 0) - sum(n.terms_ng[term] for n in nodes)
        nodes[1] = replace(nodes[1], terms_ng={**nodes[1].terms_ng, term: nodes[1].terms_ng[term] + left})
    left_uj = jobs.whole_uj + 2 * idle_uj - sum(sum(node.energy_uj.values()) for node in nodes)
    nodes[1] = replace(nodes[1], energy_uj={("cpu", "measured"): nodes[1].energy_uj["cpu", "measured"] + left_uj})
    whole = Costs(
        jobs=2,
        energy_uj={("cpu", "", "measured"): sum(sum(node.energy_uj.values()) for node in nodes)},
        terms_ng={term: sum(node.terms_ng[term] for node in nodes) for term in ("operation", "cooling", "hardware")},
    )
    groups = tuple(Group(role=one.role, phase=one.phase, costs=Costs.of([one])) for one in (platform, record))
    hours = tuple((START + hour * 3600 * S, 3_600_000_000_000 * (hour + 1)) for hour in range(3))
    return job_sheet(
        record, kind="node", id="gpu-1, gpu-2", job=None, total=whole, groups=groups, nodes=tuple(nodes),
        uncertainty=None, hours=hours, runs=(record, platform),
    )  # fmt: skip
