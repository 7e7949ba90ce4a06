"""What a data sheet says, in order; HTML and Markdown write it out, so the words stand here once."""

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.model import TERMS, Term
from wattribute.agent.core.units import NS_PER_S, UJ_PER_KWH
from wattribute.exporters.report.blocks import Bars, Block, Paragraph, Section, Stack, Step, Table
from wattribute.exporters.report.exact import decimal_of, energy, grams, mass, percent, plain, rounded
from wattribute.exporters.report.inventory import inventory
from wattribute.exporters.report.making import making
from wattribute.exporters.report.requests import requests
from wattribute.exporters.report.sheet import OWN_TERMS, SUM_NAMES, SUMS, Sheet
from wattribute.exporters.report.words import PRICE, TERM_NAMES, between, duration, moment, signed

MADE_OF = {
    "jsc": "operation + cooling",
    "jsce": "JSC + platform and retraining taxes",
    "asc": "JSC + hardware",
    "asce": "JSC^e + hardware + overhead's hardware + product tax",
}
CAUSES = {
    "energy": "how well its energy is known",
    "intensity": "the carbon intensity",
    "pue": "the PUE",
    "hardware": "what its hardware cost to make",
    "epc": "what the products cost to make",
}
TWICE = (
    "These are all of the product's jobs, whatever their role. What creating and running it cost comes back in the "
    "taxes of the jobs that use it, so JSC^e and ASC^e of all together hold it twice."
)
SHARES = ("direct", "idle", "overhead")


def title(sheet: Sheet) -> str:
    """The page's name."""
    what = {"job": f"job {sheet.id}", "product": f"product {sheet.id}", "node": f"node {sheet.id}"}
    return f"Carbon data sheet: {what[sheet.kind]}"


def outline(sheet: Sheet) -> list[Section]:
    """The sections of a sheet; those that have nothing to say are left out."""
    sections = [_what(sheet)]
    if sheet.kind == "node":
        sections.append(inventory(sheet))
    else:
        sections.append(_cost(sheet))
    if sheet.total.taxes_ng:
        sections.append(_taxes(sheet))
    sections.append(_energy(sheet))
    sections += requests(sheet)
    if sheet.made is not None:
        sections += making(sheet, sheet.made)
    if sheet.kind != "job" and sheet.groups:
        sections.append(_groups(sheet))
    sections.append(_method(sheet))
    notes = tuple(Paragraph(note) for note in _notes(sheet))
    return [*sections, Section("Notes", notes)] if notes else sections


def _what(sheet: Sheet) -> Section:
    rows = [(name, text) for name, text in _facts(sheet) if text]
    return Section("What this is about", (Table("What this is about", ("", ""), rows),))


def _facts(sheet: Sheet) -> Iterator[tuple[str, str]]:
    job, product = sheet.job, sheet.product
    if job is not None:
        yield "job", job.id
        yield "product", job.product_id
        yield "uses", ", ".join(job.uses)
        yield "role", job.role
        yield "phase", job.phase
        yield "user", job.user
        yield "nodes", _nodes(job.nodes, job.expected_nodes)
        yield "weight", "" if job.weight_ppm == 1_000_000 else plain(decimal_of(Fraction(job.weight_ppm, 1_000_000), 6))
        yield "started", moment(job.started_unix_ns or None)
        yield "ended", moment(job.ended_unix_ns) or "still runs"
        if job.ended_unix_ns is not None:
            yield "took", duration(max(0, job.ended_unix_ns - job.started_unix_ns))
    if product is not None and sheet.kind == "product":
        yield "product", product.id
        yield "kind", product.kind
        yield "version", product.version
        yield "status", product.status
        yield "boundary", product.boundary
        yield "runs on", ", ".join(product.runs_on)
        yield "owners", ", ".join(product.owners)
        yield "deployed", moment(product.deployed_unix_ns)
        yield "lifetime", "" if product.lifetime_s is None else duration(product.lifetime_s * NS_PER_S)
    if sheet.kind == "node":
        yield "nodes", ", ".join(node.id for node in sheet.nodes)
    if sheet.kind != "job":
        yield "jobs", str(sheet.total.jobs)
    if sheet.from_unix_ns is not None or sheet.to_unix_ns is not None:
        until = moment(sheet.to_unix_ns) or moment(sheet.made_unix_ns)
        yield "period", f"{moment(sheet.from_unix_ns) or 'the beginning'} to {until}"
    if sheet.total.cpu_ns:
        yield "CPU time", _seconds(sheet.total.cpu_ns)
    if sheet.total.sm_ns:
        yield "GPU time", _seconds(sheet.total.sm_ns)
    used_uj = sheet.total.whole_uj
    yield "energy", f"{energy(used_uj)} ({_kwh(used_uj)} kWh)" if used_uj else "none known"
    if sheet.kind == "product":
        yield "emitted by its jobs", mass(sheet.total.own_ng) + " CO2e (operation, cooling, hardware)"
    if sheet.kind == "job":
        known = sheet.total.electricity_known
        asce = mass(sheet.total.sums_ng()["asce"]) + " CO2e" + between(sheet.bounds_of("asce"))
        yield "ASC^e", asce if known else "unknown, as energy is"
    yield "revision", str(sheet.revision) if sheet.revision > 1 else ""
    yield "state", "provisional: some of the carbon intensity isn't final yet" if sheet.provisional else ""
    yield "made", f"{moment(sheet.made_unix_ns)} by wattribute {sheet.version}"


def _seconds(duration_ns: int) -> str:
    return f"{plain(decimal_of(Fraction(duration_ns, NS_PER_S), 3))} s"


def _kwh(energy_uj: int) -> str:
    return plain(rounded(Fraction(energy_uj, UJ_PER_KWH), 6))


def _nodes(nodes: tuple[str, ...], expected: int) -> str:
    known = ", ".join(nodes)
    return f"{known} ({len(nodes)} of {expected})" if expected > 1 else known


def _cost(sheet: Sheet) -> Section:
    total, sums = sheet.total, sheet.total.sums_ng()
    rows, steps = [], []
    known = total.electricity_known
    for term in TERMS:
        term_ng, bounds = total.term_ng(term), sheet.bounds_of(term)
        shown = _amounts(term_ng, bounds) if known or term not in ("operation", "cooling") else _UNKNOWN
        rows.append((TERM_NAMES[term], *shown, percent(term_ng, sums["asce"]) if known else ""))
        steps.append(Step(TERM_NAMES[term], term_ng, mass(term_ng), bounds, term))
    sum_rows = [
        (SUM_NAMES[name], MADE_OF[name], *(_amounts(sums[name], sheet.bounds_of(name)) if known else _UNKNOWN))
        for name in SUMS
    ]
    whole = Step("ASC^e", sums["asce"], mass(sums["asce"]), sheet.bounds_of("asce"))
    chart: list[Block] = [Stack("Seven terms up to ASC^e", tuple(steps), whole)] if known else []
    blocks: list[Block] = [
        Table("Sums", ("sum", "made of", "CO2e", "low", "high", "exactly, g"), sum_rows, frozenset({2, 3, 4, 5})),
        *chart,
        Table(
            "Terms", ("term", "CO2e", "low", "high", "exactly, g", "part of ASC^e"), rows, frozenset({1, 2, 3, 4, 5})
        ),
        Paragraph(_uncertainty(sheet)),
        Paragraph(f"{TWICE} {PRICE}", warning=True) if sheet.kind == "product" else Paragraph(PRICE),
    ]
    return Section("What it cost", tuple(blocks))


def _amounts(mass_ng: int, bounds: Bounded | None) -> tuple[str, str, str, str]:
    low, high = ("unknown", "unknown") if bounds is None else (mass(bounds.low), mass(bounds.high))
    return mass(mass_ng), low, high, plain(grams(mass_ng))


_UNKNOWN = ("unknown", "unknown", "unknown", "")


def _uncertainty(sheet: Sheet) -> str:
    if not sheet.total.electricity_known:
        return "No energy is known, so neither are operation, cooling and the sums that they are in."
    found = sheet.uncertainty
    if found is None:
        return "How uncertain this is isn't known."
    missing = "" if found.asce else " An EPC is missing, so ASC^e is a lower bound: the true figure may be any higher."
    if not found.dominant:
        return f"Nothing in it is uncertain, by what is known.{missing}"
    term, _, cause = found.dominant.partition(": ")
    name = TERM_NAMES.get(cast(Term, term))
    if name is None:
        return f"Its parts differ in what makes them most uncertain. Bounds are worst cases, so they add.{missing}"
    return (
        f"What makes it most uncertain: {name}, because of {CAUSES.get(cause, cause)}. Bounds are worst cases, so they "
        f"add.{missing}"
    )


def _taxes(sheet: Sheet) -> Section:
    found = sorted(sheet.total.taxes_ng.items(), key=lambda pair: -pair[1])
    rows = [(payee, TERM_NAMES[term], mass(ng), plain(grams(ng))) for (payee, term), ng in found]
    table = Table("Taxes", ("paid to", "term", "CO2e", "exactly, g"), rows, frozenset({2, 3}))
    return Section("Taxes by payee", (table,))


def _energy(sheet: Sheet) -> Section:
    total = sheet.total
    whole_uj = total.whole_uj
    if not whole_uj:
        return Section("Energy", (Paragraph("No energy is known: nothing measured or modelled it. That isn't 0."),))
    domains = total.energy_by(0)
    shares = [share for share in SHARES if share in total.energy_by(1)]
    rows, bars = [], []
    for domain, of_domain_uj in domains.items():
        parts = [
            sum(uj for (kind, share, _), uj in total.energy_uj.items() if kind == domain and share == name)
            for name in shares
        ]
        rows.append(
            (
                domain,
                *map(energy, parts),
                energy(of_domain_uj),
                _kwh(of_domain_uj),
                percent(of_domain_uj, whole_uj),
            )
        )
        steps = tuple(Step(name, uj, energy(uj), None, name) for name, uj in zip(shares, parts, strict=True))
        bars.append((domain, energy(of_domain_uj), steps or (Step(domain, of_domain_uj, energy(of_domain_uj)),)))
    if len(rows) > 1:
        parts = [total.energy_by(1).get(name, 0) for name in shares]
        rows.append(("all", *map(energy, parts), energy(whole_uj), _kwh(whole_uj), percent(whole_uj, whole_uj)))
    columns = ("domain", *shares, "together", "kWh", "part")
    by_quality = [(name, energy(uj), percent(uj, whole_uj)) for name, uj in total.energy_by(2).items()]
    return Section(
        "Energy",
        (
            Bars("Energy by domain and share", tuple(bars), tuple((name, name) for name in shares)),
            Table("Energy by domain", columns, rows, frozenset(range(1, len(columns)))),
            Table("Quality of the energy", ("quality", "energy", "part"), by_quality, frozenset({1, 2})),
        ),
    )


def _groups(sheet: Sheet) -> Section:
    rows = []
    for group in sheet.groups:
        costs = group.costs
        own = [mass(costs.term_ng(term)) for term in OWN_TERMS]
        name = f"{group.role}, {group.phase}" if group.phase else group.role
        rows.append(
            (name, str(costs.jobs), energy(costs.whole_uj), *own, mass(costs.own_ng), mass(costs.sums_ng()["asce"]))
        )
    columns = ("role, phase", "jobs", "energy", *OWN_TERMS, "emitted", "ASC^e")
    table = Table("Jobs by role and phase", columns, rows, frozenset(range(1, len(columns))))
    return Section("Jobs by role and phase", (table, Paragraph(f"Emitted is operation + cooling + hardware. {PRICE}")))


def _method(sheet: Sheet) -> Section:
    intensity, mean = sheet.intensity, sheet.mean_g_per_kwh()
    value = intensity.gco2e_per_kwh
    rows: list[tuple[str, str]] = [
        *((f"method, {domain}", text) for domain, text in sheet.method.items()),
        ("measured by", sheet.basis),
        ("included", ", ".join(sheet.included)),
        ("not included", ", ".join(sheet.missing)),
        *((f"policy, {name}", text) for name, text in sheet.policy.items()),
        ("priced at, on average", "" if mean is None else f"{plain(rounded(mean, 6))} g CO2e/kWh"),
        ("intensity in force", "" if value is None else f"{plain(value)} g CO2e/kWh"),
        ("zone", intensity.zone),
        ("provider", intensity.provider),
        ("intensity's method", intensity.method),
        ("factors", _factors(intensity.factor_type)),
        ("intensity's quality", intensity.quality),
        ("year", str(intensity.year or "")),
        ("source", intensity.source),
        ("PUE", "" if sheet.pue is None else plain(sheet.pue)),
        ("hardware", "; ".join(sheet.hardware)),
    ]
    shown = [(name, text) for name, text in rows if text]
    return Section("Method, boundary and prices", (Table("Method and boundary", ("", ""), shown),))


def _factors(factor_type: str) -> str:
    return {
        "lifecycle": "life-cycle: with the making of fuels and plants",
        "direct": "direct: what plants emit while they run, and nothing else",
    }.get(factor_type, factor_type)


def _notes(sheet: Sheet) -> Iterator[str]:
    corrected = [f"{TERM_NAMES[term]} {signed(ng)}" for term, ng in sheet.total.corrections_ng.items() if ng]
    if corrected:
        yield f"Corrected after the fact, and contained above: {', '.join(corrected)}."
    if sheet.job is not None and sheet.job.ended_unix_ns is None:
        yield "The job still runs: this is what it has used so far."
    if sheet.job is not None and 0 < len(sheet.job.nodes) < sheet.job.expected_nodes:
        yield f"Only {len(sheet.job.nodes)} of {sheet.job.expected_nodes} nodes have told of this job."
    yield from sheet.notes


__all__ = ["outline", "title"]
