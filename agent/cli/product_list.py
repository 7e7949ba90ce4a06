"""`wattribute product list`: every product, those of the configuration too."""

import json
import shutil
from pathlib import Path

import click

from wattribute.agent.cli import print_table
from wattribute.agent.cli.product_records import known
from wattribute.agent.cli.product_words import config_option, grams, json_option, masses, rfc3339, weight, years
from wattribute.agent.core.lineage import Book
from wattribute.agent.core.products import MICRO

HEADER = ("PRODUCT", "KIND", "VERSION", "STATUS", "MADE FROM", "LIFETIME", "EPC", "WHERE")


@click.command()
@json_option
@config_option
def command(as_json: bool, file: Path | None) -> None:
    """List all products with their EPC, and where each is declared.

    \b
    Example:
      wattribute product list --json
    """
    found = known(file)
    rows = [document(found, product_id) for product_id in sorted(found.products)]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif not rows:
        click.echo("no products yet. Add one: wattribute product add ID --kind model", err=True)
    else:
        table = [HEADER, *(_row(found, product_id) for product_id in sorted(found.products))]
        print_table(table, width=shutil.get_terminal_size((200, 24)).columns, wrap_last=False)


def where(found: Book, product_id: str) -> str:
    """Which declaration counts."""
    if product_id not in found.declared:
        return "registry"
    if product_id in found.registry.products:
        return "configuration (it counts before the registry's)"
    return "configuration"


def document(found: Book, product_id: str) -> dict[str, object]:
    """What is declared of a product, and its EPC, as JSON has it."""
    product, epc = found.products[product_id], found.epc[product_id]
    return {
        "product_id": product_id,
        "kind": product.kind,
        "version": product.version,
        "status": product.status,
        "where": "configuration" if product_id in found.declared else "registry",
        "parents": [{"id": parent, "weight": float(part)} for parent, part in product.parents.items()],
        "runs_on": list(product.runs_on),
        "owners": list(product.owners),
        "deployed_at": rfc3339(product.deployed_unix_ns),
        "lifetime_s": product.lifetime_s,
        "amortise": product.amortise,
        "unit": product.unit,
        "expected_units": None if product.expected_micro_units is None else product.expected_micro_units / MICRO,
        "boundary": product.boundary,
        "scope": product.scope,
        "tax_by": product.tax_by,
        "concurrency": product.concurrency_ppm / 1e6 or None,
        "overhead_g_per_min": product.overhead_rate * 60 / 1e18,
        "retraining_interval_s": product.retraining_interval_s,
        "epc_gco2e": grams(epc.total),
        "missing": list(found.missing(product_id)) if epc.total is None else [],
    }


def _row(found: Book, product_id: str) -> tuple[str, ...]:
    product = found.products[product_id]
    return (
        product_id,
        product.kind,
        product.version or "-",
        product.status,
        ", ".join(f"{parent} {weight(part)}" for parent, part in product.parents.items()) or "-",
        years(product.lifetime_s),
        masses(found.epc[product_id].total),
        where(found, product_id),
    )
