"""Reads a page as Prometheus' own parsers do, and its values as the exact decimals that they are."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TypeAlias

from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser

Sample: TypeAlias = tuple[str, frozenset[tuple[str, str]]]


def samples(page: bytes) -> dict[Sample, Decimal]:
    """Every series of a text page with its exact value; a series that comes twice is an error."""
    found: dict[Sample, Decimal] = {}
    for line in page.decode().split("\n"):
        if line and not line.startswith("#"):
            ((name, labels),) = [
                (sample.name, sample.labels)
                for family in parser.text_string_to_metric_families(line)
                for sample in family.samples
            ]
            key = name, frozenset(labels.items())
            assert key not in found, f"twice on the page: {line}"
            found[key] = Decimal(line.rpartition(" ")[2])
    return found


def families(page: bytes, *, is_openmetrics: bool = False) -> dict[str, Metric]:
    """The families as the official parser has them; one whose name comes twice is an error."""
    parse = openmetrics_parser if is_openmetrics else parser
    found: dict[str, Metric] = {}
    for family in parse.text_string_to_metric_families(page.decode()):
        assert family.name not in found, f"interleaved: {family.name}"
        found[family.name] = family
    return found


def floats(page: Mapping[str, Metric] | Iterable[Metric]) -> dict[Sample, float]:
    """Every series of parsed families with the float that it is to Prometheus."""
    values = page.values() if isinstance(page, Mapping) else page
    return {(s.name, frozenset(s.labels.items())): float(s.value) for family in values for s in family.samples}


def total(page: Mapping[Sample, Decimal], name: str, **labels: str) -> Decimal:
    """The sum over the series of a name that have these labels."""
    wanted = set(labels.items())
    return sum((value for (of, has), value in page.items() if of == name and wanted <= has), Decimal(0))


def label_values(page: Mapping[Sample, Decimal], name: str, *labels: str) -> set[tuple[str, ...]]:
    """What these labels of a name's series are on the page."""
    return {tuple(dict(has)[label] for label in labels) for of, has in page if of == name}
