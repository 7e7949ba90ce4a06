"""`wattribute product epc`: what making a product cost, where that came from, and what its users have paid of it."""

import json
from pathlib import Path
from typing import Any

import click

from wattribute.agent.cli.product_amortised import Amortisation, amortisation
from wattribute.agent.cli.product_freeze import missing_words
from wattribute.agent.cli.product_records import known, one_of
from wattribute.agent.cli.product_words import config_option, grams, json_option, mass, masses, rfc3339, weight
from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.core.lineage import Book, Recorded, Recovery
from wattribute.agent.core.units import g_of


@click.command()
@click.argument("product_id", metavar="ID")
@json_option
@config_option
def command(product_id: str, as_json: bool, file: Path | None) -> None:
    """Show the embodied product cost (EPC) of ID: its own part, what it inherits, and what its users have recovered.

    Exits with 1 where what was recovered and inherited is more than the EPC.

    \b
    Example:
      wattribute product epc distilbert
    """
    found = known(file)
    one_of(found, product_id)
    due = amortisation(found, product_id, file)
    now = due.paid
    if as_json:
        click.echo(json.dumps(_document(found, product_id, now, due), indent=2, ensure_ascii=False))
    else:
        for name, text in (*_made(found, product_id), *_paid(found, product_id, now, due)):
            click.echo(f"{name:<24} {text}")
    if now.excess_ng:
        raise WattributeError(
            f'product "{product_id}": its users and its children together bear {mass(now.excess_ng)} more than its '
            "EPC. A weight was given away after its users had paid that part, or a declared EPC was lowered"
        )


def _basis(found: Book, product_id: str) -> str:
    """Where the own part of an EPC comes from."""
    product = found.products[product_id]
    if product.frozen is not None:
        return "frozen"
    if product_id in found.computed:
        return "recorded"
    return "missing" if product.own is None else "declared"


def late(found: Book, product_id: str) -> Bounded | None:
    """What the records say now; None where nothing was recorded, or that is the EPC anyway."""
    recorded = found.recorded.get(product_id, Recorded()).total
    return None if recorded is None or _basis(found, product_id) == "recorded" else recorded


def _made(found: Book, product_id: str) -> list[tuple[str, str]]:
    epc, recorded = found.epc[product_id], found.recorded.get(product_id, Recorded())
    lines = [("EPC", masses(epc.total))]
    if epc.total is None:
        lines.append(("missing", missing_words(product_id, found.missing(product_id))))
    lines.append(("own", f"{masses(epc.own)}, {_basis(found, product_id)}"))
    if recorded.job_count:
        lines.append(("  creation jobs", f"{masses(recorded.jobs)} in {recorded.job_count}"))
    if recorded.running:
        lines.append(("  still running", f"{len(recorded.running)} of them"))
    if recorded.unmeasured:
        lost = ", ".join(recorded.unmeasured[:3]) + (" ..." if len(recorded.unmeasured) > 3 else "")
        lines.append(("  energy unknown", f"of {lost}: a lower bound, until product cost enters what that took"))
    if recorded.entered_count:
        lines.append(("  entered by hand", f"{masses(recorded.entered)} in {recorded.entered_count}"))
    now = late(found, product_id)
    if now is not None and epc.own is not None and now.central != epc.own.central:
        more = now.central > epc.own.central
        how = f"{'under' if more else 'over'}-recorded by {mass(abs(now.central - epc.own.central))}, not applied"
        lines.append(("  recorded by now", f"{masses(now)}: {how}"))
    for parent, part in epc.inherited.items():
        share = found.products[product_id].parents.get(parent)
        lines.append(
            (f"inherited from {parent}", masses(part) + ("" if share is None else f", weight {weight(share)}"))
        )
    return lines


def _paid(found: Book, product_id: str, now: Recovery, due: Amortisation) -> list[tuple[str, str]]:
    gave = found.given.get(product_id)
    lines: list[tuple[str, str]] = []
    if gave is not None:
        lines.append(("inherited by children", f"{mass(found.given_ng.get(product_id, 0))}, weight {weight(gave)}"))
    if now.stock_ng is not None:
        lines.append(("for its own users", mass(now.stock_ng)))
    lines.append(("recovered", mass(now.recovered_ng)))
    if now.stock_ng is not None:
        lines.append(("remaining", mass(max(0, now.stock_ng - now.recovered_ng))))
    if due.expected_ng is not None and due.ahead_ng is not None:
        word = "over" if due.ahead_ng > 0 else "under"
        off = f": {word}-recovered by {mass(abs(due.ahead_ng))}" if due.ahead_ng else ""
        lines.append(("expected by now", f"{mass(due.expected_ng)}{off}"))
    return lines + due.lines()


def _document(found: Book, product_id: str, now: Recovery, due: Amortisation) -> dict[str, Any]:
    epc, recorded = found.epc[product_id], found.recorded.get(product_id, Recorded())
    product = found.products[product_id]
    return {
        "product_id": product_id,
        "status": product.status,
        "basis": _basis(found, product_id),
        "gco2e": {
            "total": grams(epc.total),
            "own": grams(epc.own),
            "creation_jobs": grams(recorded.jobs) if recorded.job_count else None,
            "entered": grams(recorded.entered) if recorded.entered_count else None,
            "recorded": grams(recorded.total),
            "inherited": {parent: grams(part) for parent, part in epc.inherited.items()},
        },
        "creation_jobs": recorded.job_count,
        "creation_jobs_running": len(recorded.running),
        "creation_jobs_unmeasured": list(recorded.unmeasured),
        "missing": list(found.missing(product_id)) if epc.total is None else [],
        "given_weight": float(found.given.get(product_id, 0)),
        "inherited_by_children_gco2e": g_of(found.given_ng.get(product_id, 0)),
        "recovery": {
            "own_users_gco2e": _g(now.stock_ng),
            "recovered_gco2e": g_of(now.recovered_ng),
            "expected_gco2e": _g(due.expected_ng),
            "over_recovered_gco2e": _g(due.ahead_ng),
            "deployed_at": rfc3339(product.deployed_unix_ns),
            "lifetime_s": product.lifetime_s,
            "left_s": now.left_s,
            "excess_gco2e": g_of(now.excess_ng),
        },
        "amortised": due.document(),
    }


def _g(mass_ng: int | None) -> float | None:
    return None if mass_ng is None else g_of(mass_ng)
