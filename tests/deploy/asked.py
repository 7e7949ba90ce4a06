"""What is asked of a store: dashboards' panels as Grafana fills them in, docs' examples, and expressions of rules."""

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tests.deploy.stores import Series, Store, exact_s

from wattribute.exporters.grafana.queries import expanded, panel_queries

ROOT = Path(__file__).parents[2]
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
POINTS = 100  # of a graph

_OF_JOBS = re.compile(
    r"wattribute_(job|tenant)_|:wattribute_job"
    r"|wattribute_product_(energy|co2e|request|requests|idle|unsettled|stage|receipt|units)_"
)
_BLOCK = re.compile(r"^```promql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LABEL_VALUES = re.compile(r"label_values\((?:(?P<selector>.+),)?\s*(?P<label>\w+)\s*\)")


class Asked(NamedTuple):
    """One query, where it is from, and whether it is asked for one moment."""

    where: str
    expr: str
    instant: bool = True


def examples() -> list[Asked]:
    """Every query that docs and README show as one."""
    return [
        Asked(f"{path.name} {number}", block.strip())
        for path in DOCS
        for number, block in enumerate(_BLOCK.findall(path.read_text()), 1)
    ]


@functools.cache
def rules(kind: str) -> Sequence[Asked]:
    """Expressions of recording rules (`record`) or alerts (`alert`), by their names."""
    return [
        Asked(rule[kind], rule["expr"])
        for file in RULES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if kind in rule
    ]


@functools.cache
def needs_jobs() -> re.Pattern[str]:
    """What queries ask for that has no series before the first job: of the agent, and of rules about those."""
    found, names = _OF_JOBS, [""]
    while names:
        names = [rule.where for rule in rules("record") if found.search(rule.expr) and not found.search(rule.where)]
        found = re.compile("|".join((found.pattern, *names)))
    return found


def recorded_without_jobs() -> set[str]:
    """Names of the series that rules have before the first job: of nodes and of declared products."""
    return {rule.where for rule in rules("record") if not needs_jobs().search(rule.where)}


def dashboard(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def panels(of: Mapping[str, Any], chosen: Mapping[str, str], range_s: float, scrape_s: float) -> Iterator[Asked]:
    """Every panel's queries over a time of so many seconds, with the macros that Grafana knows."""
    step_s = max(range_s / POINTS, scrape_s)
    macros = {
        "__range": f"{round(range_s * 1000)}ms",
        "__range_s": f"{round(range_s)}",
        "__range_ms": f"{round(range_s * 1000)}",
        "__interval": f"{round(step_s * 1000)}ms",
        "__interval_ms": f"{round(step_s * 1000)}",
        "__rate_interval": f"{round(max(step_s + scrape_s, 4 * scrape_s) * 1000)}ms",
    }
    for query in panel_queries(of):
        yield Asked(f"{query.dashboard}: {query.panel}", expanded(query.expr, {**macros, **chosen}), query.instant)


def variables(store: Store, of: Mapping[str, Any], start_s: float, end_s: float) -> dict[str, str]:
    """What each variable stands for as the dashboard opens: all of its list, or its first; "" where it is empty."""
    chosen: dict[str, str] = {}
    for variable in of["templating"]["list"]:
        if variable["type"] == "query":
            text = variable["query"] if isinstance(variable["query"], str) else variable["query"]["query"]
            found = _LABEL_VALUES.fullmatch(expanded(text, chosen))
            assert found, f"{variable['name']}: {text} isn't label_values()"
            listed = store.label_values(found["label"], found["selector"] or "", start_s, end_s)
            if variable.get("regex"):
                kept = re.compile(variable["regex"].strip("/"))
                listed = [value for value in listed if kept.search(value)]
        else:
            listed = [str(variable.get("current", {}).get("value") or variable.get("query", ""))]
        chosen[variable["name"]] = _value(variable, listed)
    return chosen


def _value(variable: Mapping[str, Any], listed: list[str]) -> str:
    if variable.get("includeAll"):
        return str(variable.get("allValue") or f"({'|'.join(map(re.escape, listed))})")
    return listed[0] if listed else ""


def answer(store: Store, asked: Asked, at_s: float, range_s: float) -> list[Series]:
    """The series that a panel would draw: without those that are nothing but NaN."""
    if asked.instant:
        found = store.query(asked.expr, at_s)
    else:
        step_s = max(exact_s(range_s / POINTS), 0.125)
        found = store.query_range(asked.expr, at_s - int(range_s / step_s) * step_s, at_s, step_s)
    return [one for one in found if any(not value.is_nan() for _, value in one.points)]
