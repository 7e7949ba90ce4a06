"""The PromQL of the dashboards: it parses, asks for metrics that there are, and for all of them."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from tests.exporters.grafana.boards import BOARDS, ROOT
from tests.tools import require

from wattribute.exporters.grafana.promql import series
from wattribute.exporters.grafana.queries import PanelQuery, expanded, panel_queries, variable_queries
from wattribute.exporters.metrics import METRIC, METRICS

RULES = "\n".join(path.read_text() for path in sorted((ROOT / "deploy" / "prometheus").rglob("*.yml")))
RECORDED = set(re.findall(r"- record: (\S+)", RULES))
QUERIES = [query for board in BOARDS.values() for query in panel_queries(board)]
VALUES = {
    "__rate_interval": "1m",
    "__range": "6h",
    "__range_s": "21600",
    "instance": ".+",
    "job_id": "one|other",
    "product_id": ".*",
}

NAME = re.compile(r"[a-z_]*:?wattribute_\w+(?::\w+)?")
UNUSED: dict[str, str] = {}
"""Metrics that no panel, rule or alert asks for, and why."""


def names(text: str) -> set[str]:
    return set(NAME.findall(text))


def test_every_query_parses(tmp_path: Path) -> None:
    promtool = require("promtool")
    rules = "".join(
        f"  - record: query_{number}\n    expr: {json.dumps(expanded(query.expr, VALUES))}\n"
        for number, query in enumerate(QUERIES)
    )
    file = tmp_path / "queries.yml"
    file.write_text(f"groups:\n- name: dashboards\n  rules:\n{rules}")
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"{len(QUERIES)} rules found" in done.stdout


def test_every_name_is_in_the_table_or_recorded() -> None:
    shown = set(METRIC) | {f"{metric.name}_bucket" for metric in METRICS if metric.buckets} | RECORDED
    asked = {name: query for query in QUERIES for name in names(query.expr)}
    assert {name: (query.dashboard, query.panel) for name, query in asked.items() if name not in shown} == {}


def test_every_metric_is_asked_for_or_has_a_reason() -> None:
    asked = {name.removesuffix("_bucket") for query in QUERIES for name in names(query.expr)} | names(RULES)
    assert set(METRIC) - asked == set(UNUSED)
    assert all(UNUSED.values())


def test_a_name_that_is_not_in_the_table_is_no_selector() -> None:
    with pytest.raises(KeyError):
        series("wattribute_job_energy_joule_total")
    with pytest.raises(KeyError):
        series("wattribute_job_energy_joules_total_bucket")


def test_ranges_are_those_of_grafana() -> None:
    for query in QUERIES:
        for function, of in re.findall(r"(\w+)\((?:[\w:]+)(?:\{[^}]*\})?\[([^\]]+)\]\)", query.expr):
            wanted = "$__rate_interval" if function in ("rate", "increase") else "$__range"
            assert of == wanted, (query.dashboard, query.panel, query.expr)
        assert query.expr.count("[") == len(re.findall(r"\[\$__(?:rate_interval|range)\]", query.expr)), query.expr


def test_no_job_total_is_extrapolated() -> None:
    for query in QUERIES:
        assert not re.search(r"increase\([^)]*wattribute_job_", query.expr), query.expr
        assert not re.search(r"(rate|increase)\([a-z_]+:wattribute_", query.expr), "a recorded sum is no counter"


def test_panels_of_jobs_leave_folded_ones_out() -> None:
    for query in QUERIES:
        for where in re.findall(r"(?<!:)wattribute_job_\w+(\{[^}]*\})?", query.expr):
            assert "job_id" in where, (query.dashboard, query.panel)
    listed = variable_queries(BOARDS["job"])
    assert [one.query for one in listed] == ["label_values(wattribute_job_info, job_id)"]  # folded jobs have no info


def test_variables_list_labels_of_metrics_that_have_them() -> None:
    for board in BOARDS.values():
        first, *others = board["templating"]["list"]
        assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
        for variable in others:
            assert variable["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert variable["refresh"] == 2  # as the time shown changes
            assert variable["multi"]  # only then does Grafana escape a single choice for =~
        for one in variable_queries(board):
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", one.query)
            assert found is not None
            assert found[2] in (*METRIC[found[1]].labels, "instance")


def test_every_variable_is_asked_for_as_a_regular_expression() -> None:
    for query in QUERIES:
        used = set(re.findall(r"\$([A-Za-z]\w*)", query.expr))
        known = {
            one["name"]
            for name, board in BOARDS.items()
            if board["uid"] == query.dashboard
            for one in board["templating"]["list"]
        }
        assert used <= known, (query.dashboard, query.panel)
        for name in used:
            assert len(re.findall(rf'=~"\${name}"', query.expr)) == query.expr.count(f"${name}")


def _id(query: PanelQuery) -> str:
    return f"{query.dashboard}: {query.panel}"


def test_legends_name_labels_that_the_query_keeps() -> None:
    for query in QUERIES:
        named = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
        by = {label for labels in re.findall(r"by \(([^)]*)\)", query.expr) for label in labels.split(", ")}
        own = {label for name in names(query.expr) if name in METRIC for label in METRIC[name].labels}
        recorded = (
            {"product_id", "domain", "quality", "term", "reason", "identity"} if names(query.expr) & RECORDED else set()
        )
        assert named <= by | own | recorded | {"instance"}, _id(query)
        outer = re.match(r"(?:3600 \* )?sum by \(([^)]*)\)", query.expr)
        if outer and query.legend:
            assert set(outer[1].split(", ")) == named, _id(query)


def test_several_series_of_one_panel_can_be_told_apart() -> None:
    for board in BOARDS.values():
        for panel in board["panels"]:
            if panel["type"] in ("timeseries", "stat") and len(panel["targets"]) > 1:
                legends = [target.get("legendFormat", "") for target in panel["targets"]]
                assert all(legends) and len(set(legends)) == len(legends), panel["title"]


def test_macros_are_replaced_and_unknown_ones_are_errors() -> None:
    assert (
        expanded('a{b=~"$x",c="d$"}[$__range] "$1" ${x:regex}', {"x": "1", "__range": "6h"})
        == 'a{b=~"1",c="d$"}[6h] "$1" 1'
    )
    with pytest.raises(KeyError):
        expanded("rate(a[$__rate_interval])", {})
