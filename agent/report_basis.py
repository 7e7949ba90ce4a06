"""What a data sheet needs beside the archive's sums: how this node measures, how sure that is, jobs without a ledger.

Integers are microjoules, nanograms and nanoseconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

from wattribute.agent.archive.receipt_amounts import energy_of
from wattribute.agent.config import Loaded
from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.hardware import Band, Hardware
from wattribute.agent.core.intensity import BAND_ELSE, ratios
from wattribute.agent.core.intensity import band_of as intensity_band_of
from wattribute.agent.core.lineage import Book
from wattribute.agent.core.model import TERMS, CarbonIntensity, Job, Role, Term
from wattribute.agent.core.products import payees, pays_epc
from wattribute.agent.core.receipt import UNSEEN
from wattribute.agent.core.records import JobRecord
from wattribute.agent.core.uncertainty import Uncertainty, band_of, bounds, pue_band
from wattribute.agent.core.units import ng_from_g
from wattribute.exporters.report.sheet import Costs, Intensity

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """How energy was measured and priced, in words: a receipt's, this node's, or the configuration's."""

    node: str = ""
    basis: str = ""
    method: Mapping[str, str] = field(default_factory=dict)
    policy: Mapping[str, str] = field(default_factory=dict)
    included: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    intensity: Intensity = field(default_factory=Intensity)
    pue: Decimal | None = None
    hardware: tuple[str, ...] = ()
    bands: Mapping[str, Band] = field(default_factory=dict)
    """Of the intensity, the PUE and the hardware, where the agent told them."""


def of_receipt(receipt: Mapping[str, Any], loaded: Loaded) -> Basis:
    """The words of a job's receipt, which is of this machine: its hardware is the configuration's."""
    return Basis(
        node=receipt["node"],
        basis=receipt["basis"],
        method=dict(receipt["method"]),
        policy=dict(receipt["policy"]),
        included=tuple(receipt["boundary"]["included"]),
        missing=tuple(receipt["boundary"]["missing"]),
        notes=tuple(receipt["notes"]),
        intensity=_intensity(receipt["intensity"] or {}, loaded),
        pue=_pue(receipt["pue"], loaded),
        hardware=_hardware(loaded),
    )


def of_node(loaded: Loaded) -> Basis | None:
    """What the agent of this machine last saved of itself; None where it left no ledger that we may read.

    Raises LedgerError for a damaged one.
    """
    from wattribute.agent.ledger.files import DATABASE
    from wattribute.agent.ledger.reader import read_only

    state_dir = Path(loaded.config.agent.state_dir)
    try:
        if not (state_dir / DATABASE).exists():
            return None
    except PermissionError:
        return None
    with read_only(state_dir) as ledger:
        about = ledger.state().get("about")
    if about is None:
        return None
    return Basis(
        node=about["node"],
        basis=about["basis"],
        method=dict(about["method"]),
        policy=dict(about["policy"]),
        included=tuple(about["domains"]),
        missing=(*(kind for kind in ("cpu", "dram") if kind not in about["domains"]), *about.get("unseen", UNSEEN)),
        notes=tuple(about["notes"]),
        intensity=_intensity(about["intensity"], loaded),
        pue=_pue(about["pue"], loaded),
        hardware=_hardware(loaded),
        bands={name: (Fraction(low), Fraction(high)) for name, (low, high) in about.get("bands", {}).items()},
    )


def of_config(loaded: Loaded) -> Basis:
    """What the configuration says of prices; how other nodes measure isn't known here. Raises ConfigError."""
    carbon, fixed = loaded.config.carbon, _fixed(loaded)
    said = {
        "gco2e_per_kwh": fixed.gco2e_per_kwh if fixed else None,
        "grid_zone": fixed.zone if fixed else loaded.config.provider.zone,
        "provider": fixed.provider if fixed else carbon.provider or "series",
        "method": fixed.method if fixed else f"average, {carbon.factor_type}",
        "quality": fixed.quality if fixed else "",
    }
    return Basis(intensity=_intensity(said, loaded), pue=_pue(carbon.pue, loaded))


def _fixed(loaded: Loaded) -> CarbonIntensity | None:
    """The configured intensity where it is one for all time; None where a series or a provider tells it."""
    from wattribute.agent.grid import chosen, fixed_value

    carbon = loaded.config.carbon
    if carbon.series is not None or carbon.provider is not None:
        return None
    return fixed_value(carbon, 0, configured=chosen(loaded))


def _pue(value: float | None, loaded: Loaded) -> Decimal | None:
    varies = loaded.config.carbon.pue_series or loaded.config.provider.pue_query
    return None if value is None or varies else _decimal(value)


def _decimal(value: float) -> Decimal:
    """A figure of a receipt, where it may be a mean, without the noise of the division."""
    return Decimal(str(round(value, 6)))


def _intensity(said: Mapping[str, Any], loaded: Loaded) -> Intensity:
    value, method = said.get("gco2e_per_kwh"), said.get("method") or ""
    fixed = _fixed(loaded)
    known = fixed if fixed is not None and fixed.provider == said.get("provider") else None
    return Intensity(
        gco2e_per_kwh=None if value is None else _decimal(value),
        zone=said.get("grid_zone") or "",
        provider=said.get("provider") or "",
        method=method,
        factor_type=method.partition(", ")[2],
        quality=said.get("quality") or "",
        year=known.year if known else None,
        source=known.source if known else "",
    )


def _hardware(loaded: Loaded) -> tuple[str, ...]:
    return tuple(f"{part.count:g} x {part.item or part.component}" for part in loaded.config.embodied)


def uncertainty(
    costs: Costs, basis: Basis, loaded: Loaded, book: Book, jobs: Iterable[tuple[str, tuple[str, ...], Role]]
) -> Uncertainty:
    """The bounds of some costs, by the intensity, PUE and hardware of this node, and the products' EPC.

    `jobs`: (product, uses, role) of those who caused them, each kind once. Raises ConfigError.
    """
    bands = basis.bands or _bands(loaded)
    low, high = bands["intensity"]
    if loaded.config.carbon.provider is not None:
        # What is in force now isn't what was: some of it was estimated, or stood in for an answer.
        low, high = min(low, BAND_ELSE[0]), max(high, BAND_ELSE[1])
    epc_bands: dict[str, Band | None] = {}
    for product_id, uses, role in jobs:
        job = Job(id="", product_id=product_id, uses=uses, role=role)
        for payee in payees(job, book.products):
            product = book.products[payee]
            if product.written_off and product.status != "open" and pays_epc(job, payee, book.products):
                total = book.epc[payee].total
                epc_bands[payee] = None if total is None else band_of(total)
    return bounds(
        costs.terms_ng,
        costs.energy_by(2),
        intensity_band=(low, high),
        pue_band=bands["pue"],
        hardware_band=bands["hardware"],
        epc_bands=epc_bands,
        taxes_ng=costs.taxes_ng,
        declared={product.id for product in book.products.values() if product.overhead_rate},
    )


def _bands(loaded: Loaded) -> dict[str, Band]:
    """How far off the configuration's figures may be."""
    from wattribute.agent.grid import knows_pue
    from wattribute.agent.wiring import components

    carbon, fixed = loaded.config.carbon, _fixed(loaded)
    return {
        "intensity": intensity_band_of("final", f"average, {carbon.factor_type}") if fixed is None else ratios(fixed),
        "pue": pue_band(carbon.pue, configured=knows_pue(loaded)),
        "hardware": Hardware(components(loaded.config, ())[0]).band(),
    }


def receipt_uncertainty(receipt: Mapping[str, Any], costs: Costs) -> Uncertainty | None:
    """The bounds that a job's receipt states, where it is about the very same costs: a sheet doesn't say otherwise."""
    said, sums = receipt["bounds"], costs.sums_ng()
    if not said.get("terms") or any(ng_from_g(receipt["gco2e"][name] or 0) != ng for name, ng in sums.items()):
        return None

    def bounded(ends: Sequence[float] | None, central_ng: int) -> Bounded | None:
        return None if ends is None else Bounded(ng_from_g(ends[0]), central_ng, ng_from_g(ends[1]))

    try:
        whole = {name: bounded(said[name], ng) for name, ng in sums.items()}
        terms = {term: bounded(said["terms"][term], costs.term_ng(term)) for term in TERMS}
    except ValueError:  # rounded to a float, and so a nanogram off
        return None
    jsc, jsce, asc = whole["jsc"], whole["jsce"], whole["asc"]
    if jsc is None or jsce is None or asc is None:
        return None
    return Uncertainty(terms=terms, jsc=jsc, jsce=jsce, asc=asc, asce=whole["asce"], dominant=said["dominant"])


def record_of(receipt: Mapping[str, Any]) -> JobRecord:
    """A receipt as a record: of a job that was measured without an agent, or whose rows aren't closed yet.

    A receipt tells qualities of the whole, not by domain: what can't be told apart counts as modelled.
    """
    energy = energy_of(receipt, [])
    grams = receipt["gco2e"]
    taxes: dict[tuple[str, Term], int] = {}
    for tax in receipt["taxes"]:
        key = (tax["product_id"], cast(Term, tax["term"]))
        taxes[key] = taxes.get(key, 0) + ng_from_g(tax["gco2e"])
    return JobRecord(
        id=receipt["job_id"],
        product_id=receipt["product_id"],
        uses=tuple(receipt["uses"]),
        role=cast(Role, receipt["role"]),
        phase=receipt["phase"],
        nodes=(receipt["node"],) if receipt["node"] else (),
        expected_nodes=receipt["expected_nodes"],
        started_unix_ns=_unix_ns(receipt["started_at"]) or 0,
        ended_unix_ns=_unix_ns(receipt["ended_at"]),
        energy_uj=energy,
        terms_ng={term: ng_from_g(grams[term]) for term in TERMS if grams[term] is not None},
        taxes_ng=taxes,
        cpu_ns=ng_from_g(receipt["cpu_s"] or 0),  # seconds to nanoseconds, as grams to nanograms
        sm_ns=ng_from_g(receipt["gpu_sm_s"] or 0),
        revision=max(1, receipt["revision"]),
        provisional=receipt["ended_at"] is not None and not receipt["settled"],
    )


def _unix_ns(text: str | None) -> int | None:
    return None if text is None else (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1) * 1000


__all__ = ["Basis", "of_config", "of_node", "of_receipt", "receipt_uncertainty", "record_of", "uncertainty"]
