"""What a data sheet needs beside the archive's sums: how this node measures, how sure that is, jobs without a ledger.

Integers are microjoules, nanograms and nanoseconds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from wattribute.agent.config import Loaded
from wattribute.agent.core.hardware import Band, Hardware
from wattribute.agent.core.intensity import band_of as intensity_band_of
from wattribute.agent.core.lineage import Book
from wattribute.agent.core.model import TERMS, Job, Role, Term
from wattribute.agent.core.products import payees
from wattribute.agent.core.receipt import UNSEEN
from wattribute.agent.core.records import JobRecord
from wattribute.agent.core.uncertainty import Uncertainty, band_of, bounds, pue_band
from wattribute.agent.core.units import ng_from_g, uj_from_j
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
        missing=(*(kind for kind in ("cpu", "dram") if kind not in about["domains"]), *UNSEEN),
        notes=tuple(about["notes"]),
        intensity=_intensity(about["intensity"], loaded),
        pue=_pue(about["pue"], loaded),
        hardware=_hardware(loaded),
    )


def of_config(loaded: Loaded) -> Basis:
    """What the configuration says of prices; how other nodes measure isn't known here."""
    carbon = loaded.config.carbon
    said = {
        "gco2e_per_kwh": carbon.intensity_g_per_kwh,
        "grid_zone": loaded.config.provider.zone or carbon.zone or "",
        "provider": carbon.provider or ("mix" if carbon.mix else "series" if carbon.series else ""),
        "method": f"average, {carbon.factor_type}",
    }
    return Basis(intensity=_intensity(said, loaded), pue=_pue(carbon.pue, loaded))


def _pue(value: float | None, loaded: Loaded) -> Decimal | None:
    varies = loaded.config.carbon.pue_series or loaded.config.provider.pue_query
    return None if value is None or varies else Decimal(str(value))


def _intensity(said: Mapping[str, Any], loaded: Loaded) -> Intensity:
    value, method = said.get("gco2e_per_kwh"), said.get("method") or ""
    return Intensity(
        gco2e_per_kwh=None if value is None else Decimal(str(value)),
        zone=said.get("grid_zone") or "",
        provider=said.get("provider") or "",
        method=method,
        factor_type=method.rpartition(", ")[2] if ", " in method else loaded.config.carbon.factor_type,
        quality=said.get("quality") or "",
        year=said.get("year"),
        source=said.get("source") or "",
    )


def _hardware(loaded: Loaded) -> tuple[str, ...]:
    return tuple(f"{part.count:g} x {part.item or part.component}" for part in loaded.config.embodied)


def uncertainty(
    costs: Costs, basis: Basis, loaded: Loaded, book: Book, jobs: Iterable[tuple[str, tuple[str, ...], Role]]
) -> Uncertainty:
    """The bounds of some costs, by this node's hardware, PUE and intensity, and the products' EPC.

    `jobs`: (product, uses, role) of those who caused them, each kind once.
    """
    from wattribute.agent.wiring import components

    epc_bands: dict[str, Band | None] = {}
    for product_id, uses, role in jobs:
        job = Job(id="", product_id=product_id, uses=uses, role=role)
        for payee in payees(job, book.products):
            total = book.epc[payee].total
            epc_bands[payee] = None if total is None else band_of(total)
    return bounds(
        costs.terms_ng,
        costs.energy_by(2),
        intensity_band=intensity_band_of(basis.intensity.quality, basis.intensity.method),
        pue_band=pue_band(loaded.config.carbon.pue, configured=not loaded.is_default("carbon.pue")),
        hardware_band=Hardware(components(loaded.config, ())[0]).band(),
        epc_bands=epc_bands,
        taxes_ng=costs.taxes_ng,
        declared={product.id for product in book.products.values() if product.overhead_rate},
    )


def record_of(receipt: Mapping[str, Any]) -> JobRecord:
    """A receipt as a record: of a job that was measured without an agent, or whose rows aren't closed yet.

    A receipt tells qualities of the whole, not by domain: a domain is modelled where its method says so.
    """
    ratios = receipt["quality"]
    sensed = "integrated" if ratios["integrated"] and not ratios["measured"] else "measured"
    energy: dict[tuple[str, str, str], int] = {}
    for domain, shares in receipt["energy_j"].items():
        modelled = receipt["method"].get(domain, "").startswith("modelled") or ratios["modelled"] == 1
        for share, energy_j in (shares or {}).items():
            if energy_j:
                energy[domain, share, "modelled" if modelled else sensed] = uj_from_j(energy_j)
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


__all__ = ["Basis", "of_config", "of_node", "of_receipt", "record_of", "uncertainty"]
