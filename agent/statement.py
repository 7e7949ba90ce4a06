"""A job's receipt from its live or its saved totals, and what is the same on all receipts of a node."""

import os
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import isclose
from pathlib import Path
from typing import Any, cast

from wattribute.agent.core.fleet_shares import waiting
from wattribute.agent.core.intensity import Band
from wattribute.agent.core.model import (
    DOMAIN_KINDS,
    ENERGY_SLOTS,
    QUALITIES,
    SHARE_KINDS,
    TERM_SLOT,
    Term,
    energy_slot,
)
from wattribute.agent.core.products import Product, payees, pays_epc
from wattribute.agent.core.receipt import build
from wattribute.agent.core.retraining import served
from wattribute.agent.core.uncertainty import Uncertainty, band_of_texts, bounds, by_quality, receipt_bounds
from wattribute.agent.core.unit_shares import told
from wattribute.agent.core.units import UJ_PER_KWH, g_of
from wattribute.agent.live import LiveJob
from wattribute.agent.receipts import OVERLAPPED
from wattribute.agent.saved import revive

ALL = Fraction(1)
_PRICED: tuple[Term, Term] = ("operation", "cooling")


def receipt_of(
    live: LiveJob, about: Mapping[str, Any], *, now_unix_ns: int, settled: bool, exact: LiveJob | None = None
) -> dict[str, Any]:
    """One job's receipt. `about` is the node's: node, basis, method, policy, domains, notes, what Climate.about and
    Dues.about tell. `exact`: where `live` is a copy with rounded totals, the job itself, whose mean prices are told,
    to four digits: with more of them its totals could be had from their ratios.
    """
    charged = _charged(live, about) if exact is None or exact is live else _charged(exact, about, digits=4)
    notes: Sequence[str] = [*about["notes"], *live.notes]
    if live.overlapped:
        notes = [*notes, OVERLAPPED]
    if live.folded:
        notes = [*notes, "past export.max_jobs: on the page this job is part of `_overflow`"]
    return build(
        live.entry.job,
        live.entry.values,
        live.entry.taxes_ng,
        corrections_ng=live.corrections_ng,
        revision=live.revision,
        now_unix_ns=now_unix_ns,
        domains=about["domains"],
        common={**about, **charged, "gaps": live.gaps},
        members=max(1, live.member_count),
        settled=settled,
        notes=notes,
        bounds=_bounds(live, about),
    )


def _charged(live: LiveJob, about: Mapping[str, Any], *, digits: int = 17) -> dict[str, Any]:
    """The mean intensity and PUE that the job's energy is charged at by now, unless they are those in force."""
    values = live.entry.values
    energy_uj = sum(values[:ENERGY_SLOTS])
    operation_ng, cooling_ng = (
        values[TERM_SLOT[term]] + sum(ng for (_, name), ng in live.corrections_ng.items() if name == term)
        for term in _PRICED
    )
    if not energy_uj or operation_ng <= 0:
        return {}
    g_per_kwh, pue = g_of(operation_ng) * UJ_PER_KWH / energy_uj, 1 + cooling_ng / operation_ng
    rounded = max(1e-6, 100 / operation_ng)  # a window's grams are whole nanograms
    if isclose(g_per_kwh, about["intensity"]["gco2e_per_kwh"], rel_tol=rounded) and isclose(
        pue, about["pue"], rel_tol=rounded
    ):
        return {}
    g_per_kwh, pue = (float(f"{price:.{digits}g}") for price in (g_per_kwh, pue))
    return {"intensity": {**about["intensity"], "gco2e_per_kwh": g_per_kwh}, "pue": pue}


def _bounds(live: LiveJob, about: Mapping[str, Any]) -> dict[str, object]:
    found = uncertainty_of(live, about)
    return {"jsce": None, "asce": None} if found is None else receipt_bounds(found)


def uncertainty_of(live: LiveJob, about: Mapping[str, Any]) -> Uncertainty | None:
    """Between which figures its terms lie; None for a job of a version that didn't say how far off prices may be."""
    bands = about.get("bands")
    if bands is None:
        return None
    job, values = live.entry.job, live.entry.values
    products = _Products(about["products"])
    epc_bands: dict[str, Band | None] = {}
    declared = set()
    for payee in payees(job, products):
        said = about["products"][payee]
        if said["declared_rate"]:
            declared.add(payee)
        if said["written_off"] and pays_epc(job, payee, products):
            epc_bands[payee] = None if said["epc_band"] is None else band_of_texts(said["epc_band"])
    terms_ng = {term: values[slot] for term, slot in TERM_SLOT.items()}
    taxes_ng = dict(live.entry.taxes_ng)
    for (product_id, term), delta_ng in live.corrections_ng.items():
        name = cast(Term, term)
        terms_ng[name] += delta_ng
        taxes_ng[product_id, name] = taxes_ng.get((product_id, name), 0) + delta_ng
    return bounds(
        terms_ng,
        by_quality(
            (kind, quality, values[energy_slot(kind, share, quality)])
            for kind in DOMAIN_KINDS
            for quality in QUALITIES
            for share in SHARE_KINDS
        ),
        intensity_band=live.band,
        pue_band=band_of_texts(bands["pue"]),
        hardware_band=band_of_texts(bands["hardware"]),
        epc_bands=epc_bands,
        taxes_ng=taxes_ng,
        declared=declared,
    )


class _Products(Mapping[str, Product]):
    """What `about` says of products as such, made when it is asked for: a job pays few of them."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = said

    def __getitem__(self, product_id: str) -> Product:
        said = self._said[product_id]
        return Product(id=product_id, runs_on=tuple(said["runs_on"]), parents=dict.fromkeys(said["parents"], ALL))

    def __contains__(self, product_id: object) -> bool:
        return product_id in self._said

    def __iter__(self) -> Iterator[str]:
        return iter(self._said)

    def __len__(self) -> int:
        return len(self._said)


def recorded(state_dir: Path) -> list[dict[str, Any]]:
    """The receipts of all jobs in an agent's ledger, also while it is down; [] where there is none that we may read.

    Raises LedgerError for one that is damaged.
    """
    from wattribute.agent.climate import CLOSED_BY_NS
    from wattribute.agent.ledger.reader import read_only
    from wattribute.agent.settlement import GIVEN_UP_NS

    if not os.access(state_dir / "ledger.db", os.R_OK):
        return []
    with read_only(state_dir) as ledger:
        state = ledger.state()
        if "about" not in state:
            return []
        saved = {**ledger.finished_jobs(), **ledger.jobs()}
        seen_unix_ns = ledger.committed_unix_ns()
    taxed_later = served(state) | waiting(state) | told(state)
    # Where prices change in time: up to when what was booked is settled, and since when a final price is waited for.
    until_unix_ns = state.get("corrections", {}).get("until_unix_ns", 0) - CLOSED_BY_NS
    since_unix_ns = seen_unix_ns - GIVEN_UP_NS if state["about"].get("varies") else seen_unix_ns
    receipts = []
    for key, job in saved.items():
        if not key.startswith("_"):
            live = revive(job)
            ended_unix_ns = live.entry.job.ended_unix_ns
            priced = ended_unix_ns is not None and ended_unix_ns <= max(until_unix_ns, since_unix_ns)
            settled = priced and key not in taxed_later
            receipts.append(receipt_of(live, state["about"], now_unix_ns=seen_unix_ns, settled=settled))
    return receipts
