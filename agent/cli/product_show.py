"""`wattribute product show`: everything that is declared and recorded of one product."""

import json
from pathlib import Path
from typing import Any

import click

from wattribute.agent.cli.product_amortised import amortisation
from wattribute.agent.cli.product_list import document, where
from wattribute.agent.cli.product_records import known, one_of
from wattribute.agent.cli.product_words import config_option, grams, json_option, masses, rfc3339, weight, years
from wattribute.agent.core.lineage import Book
from wattribute.agent.core.units import DAY_S


@click.command()
@click.argument("product_id", metavar="ID")
@json_option
@config_option
def command(product_id: str, as_json: bool, file: Path | None) -> None:
    """Show what is declared of ID, the costs entered for it, and who changed it when.

    \b
    Example:
      wattribute product show distilbert
    """
    found = known(file)
    one_of(found, product_id)
    if as_json:
        click.echo(json.dumps(_document(found, product_id, file), indent=2, ensure_ascii=False))
        return
    for name, text in _lines(found, product_id, file):
        click.echo(f"{name:<12} {text}")


def _document(found: Book, product_id: str, file: Path | None) -> dict[str, Any]:
    costs = found.registry.costs.get(product_id, {}).values()
    return {
        **document(found, product_id),
        "amortised": amortisation(found, product_id, file).document(),
        "children": _children(found, product_id),
        "costs": [
            {"id": cost.id, "gco2e": grams(cost.mass), "note": cost.note, "at": cost.at, "by": cost.by}
            for cost in costs
        ],
        "history": found.registry.history.get(product_id, []),
    }


def _children(found: Book, product_id: str) -> list[dict[str, Any]]:
    return [
        {"id": child.id, "weight": float(child.parents[product_id])}
        for child in found.products.values()
        if product_id in child.parents
    ]


def _lines(found: Book, product_id: str, file: Path | None) -> list[tuple[str, str]]:
    product = found.products[product_id]
    version = f" {product.version}" if product.version else ""
    lines = [("product", f"{product_id} ({product.kind}{version}, {product.status})")]
    lines.append(("declared in", where(found, product_id)))
    if product.boundary:
        lines.append(("boundary", product.boundary))
    lines.append(("EPC", f"{masses(found.epc[product_id].total)}; more: wattribute product epc {product_id}"))
    lines.append(("lifetime", years(product.lifetime_s)))
    if product.expected_micro_units is not None:
        lines += [("amortised", f"{name}, {text}") for name, text in amortisation(found, product_id, file).lines()[1:]]
    if product.deployed_unix_ns is not None:
        lines.append(("deployed", str(rfc3339(product.deployed_unix_ns))))
    lines += [("made from", f"{parent}, weight {weight(part)}") for parent, part in product.parents.items()]
    lines += [("gave to", f"{child['id']}, weight {child['weight']:.12g}") for child in _children(found, product_id)]
    lines += [("runs on", other) for other in product.runs_on]
    lines.append(("owners", ", ".join(product.owners)))
    if product.overhead_rate:
        lines.append(("overhead", f"{product.overhead_rate * 60 / 1e18:g} g a minute, declared"))
    if product.concurrency_ppm:
        lines.append(("concurrency", f"{product.concurrency_ppm / 1e6:g}, declared"))
    if product.scope:
        lines.append(("scope", product.scope))
    if product.tax_by != "weight":
        lines.append(("taxed by", product.tax_by))
    if product.retraining_interval_s:
        lines.append(("retraining", f"split over {product.retraining_interval_s / DAY_S:g} days"))
    for cost in found.registry.costs.get(product_id, {}).values():
        lines.append(("cost", f'{masses(cost.mass)}: {cost.note} (id "{cost.id}", {cost.by}, {cost.at})'))
    for event in found.registry.history.get(product_id, []):
        lines.append(("history", f"{event.get('at', '')} {event.get('by', '')}: {event['event']}"))
    return lines
