"""The table of names keeps to the rules of Prometheus and OpenMetrics, and the docs are made from it."""

import re
from pathlib import Path

from wattribute.exporters.metrics import METRIC, METRICS, reference

ROOT = Path(__file__).resolve().parents[2]
BASE_UNITS = ("joules", "grams", "seconds", "bytes", "ratio")


def test_names_are_unique() -> None:
    assert len(METRIC) == len(METRICS)
    assert len({metric.family for metric in METRICS}) == len(METRICS)


def test_names_and_labels_are_legal_and_ours() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"wattribute_[a-z0-9_]+", metric.name)
        assert not {"job", "instance", "pid", "hostname", "node", "pod", "namespace"} & set(metric.labels)
        assert len(set(metric.labels)) == len(metric.labels)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in metric.labels)


def test_a_unit_is_named_exactly_where_the_name_ends_in_it() -> None:
    for metric in METRICS:
        if metric.unit:
            assert metric.family.endswith(f"_{metric.unit}")
        else:
            assert not metric.family.endswith(BASE_UNITS)


def test_help_needs_no_escaping() -> None:
    for metric in METRICS:
        assert metric.help.endswith(".")
        assert not set(metric.help) & set('\\"\n')


def test_the_docs_are_made_from_the_table() -> None:
    made = "".join(f"{line}\n" for line in reference())
    assert (ROOT / "docs" / "metrics.md").read_text() == made, (
        "run: python -m wattribute.exporters.metrics > docs/metrics.md"
    )
