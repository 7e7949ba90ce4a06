"""`wattribute product lineage`: where a product came from, as a tree; and what came from it."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from wattribute.agent.cli.product_records import known, one_of
from wattribute.agent.cli.product_words import config_option, grams, json_option, masses, weight
from wattribute.agent.core.lineage import Edge, Lineage, Node, lineage

FINE, PLAIN = ("├─ ", "└─ ", "│  ", "   "), ("|- ", "`- ", "|  ", "   ")


@click.command()
@click.argument("product_id", metavar="ID")
@click.option("--children", is_flag=True, help="Show what was made from it, too.")
@json_option
@config_option
def command(product_id: str, children: bool, as_json: bool, file: Path | None) -> None:
    """Draw what ID was made from: each parent with its weight and the EPC that it brings.

    A product that was drawn already is marked "(above)" and not drawn again.

    \b
    Example:
      wattribute product lineage distilbert --children
    """
    found = known(file)
    one_of(found, product_id)
    graph = lineage(found, product_id, children=children)
    if as_json:
        click.echo(json.dumps(_document(product_id, graph), indent=2, ensure_ascii=False))
        return
    nodes = {node.id: node for node in graph.nodes}
    for line in drawn(product_id, nodes, _upwards(graph)):
        click.echo(line)
    below = _downwards(graph)
    if children:
        click.echo("\nmade from it:" if product_id in below else "\nnothing was made from it")
        for line in list(drawn(product_id, nodes, below))[1:]:
            click.echo(line)


Branches = Mapping[str, list[tuple[str, Edge]]]


def _upwards(graph: Lineage) -> Branches:
    branches: dict[str, list[tuple[str, Edge]]] = {}
    for edge in graph.edges:
        branches.setdefault(edge.child, []).append((edge.parent, edge))
    return branches


def _downwards(graph: Lineage) -> Branches:
    branches: dict[str, list[tuple[str, Edge]]] = {}
    for edge in graph.edges:
        branches.setdefault(edge.parent, []).append((edge.child, edge))
    return branches


def drawn(product_id: str, nodes: Mapping[str, Node], branches: Branches) -> Iterator[str]:
    """A tree's lines; each product with what hangs on it once. No recursion: chains may be long."""
    fork, last, through, blank = FINE if _can_say(FINE[0]) else PLAIN
    yield _named(nodes[product_id])
    seen = {product_id}
    pending = [(branch, "", position) for position, branch in enumerate(reversed(branches.get(product_id, [])))]
    while pending:
        (other, edge), indent, after = pending.pop()
        known_already = other in seen and bool(branches.get(other))
        text = f"{_named(nodes[other])}: weight {weight(edge.weight)} brings {masses(edge.inherited)}"
        yield indent + (fork if after else last) + text + (" (above)" if known_already else "")
        if not known_already:
            seen.add(other)
            deeper = indent + (through if after else blank)
            pending += [(branch, deeper, position) for position, branch in enumerate(reversed(branches.get(other, [])))]


def _named(node: Node) -> str:
    if node.kind == "undeclared":
        return f"{node.id} (not registered)"
    retired = ", retired" if node.status == "retired" else ""
    return f"{node.id} ({node.kind}{retired}, EPC {masses(node.epc)})"


def _can_say(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _document(product_id: str, graph: Lineage) -> dict[str, Any]:
    return {
        "product_id": product_id,
        "nodes": [
            {"id": node.id, "kind": node.kind, "status": node.status, "epc_gco2e": grams(node.epc), "depth": node.depth}
            for node in graph.nodes
        ],
        "edges": [
            {
                "parent": edge.parent,
                "child": edge.child,
                "weight": float(edge.weight),
                "inherited_gco2e": grams(edge.inherited),
            }
            for edge in graph.edges
        ],
    }
