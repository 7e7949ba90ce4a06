"""What a dashboard asks for: the PromQL of its panels and the queries of its variables, read from its JSON."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::\w+)?\})")


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One target of one panel; `expr` still has its macros ($__rate_interval, $product_id). `legend` may be empty.

    `may_be_empty`: the panel has words for having no series, such as "none"; elsewhere that is a defect.
    """

    dashboard: str
    panel: str
    expr: str
    instant: bool
    legend: str
    may_be_empty: bool


@dataclass(frozen=True, slots=True)
class VariableQuery:
    """What fills a variable's list: `label_values(wattribute_job_info, job_id)`. It may name other variables."""

    dashboard: str
    name: str
    query: str


def panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every panel of a dashboard, rows and what is folded into them included."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def panel_queries(dashboard: Mapping[str, Any]) -> list[PanelQuery]:
    """Every query of every panel, in the order of the dashboard."""
    return [
        PanelQuery(
            dashboard=dashboard["uid"],
            panel=panel["title"],
            expr=target["expr"],
            instant=bool(target.get("instant", False)),
            legend=target.get("legendFormat", ""),
            may_be_empty="noValue" in panel.get("fieldConfig", {}).get("defaults", {}),
        )
        for panel in panels(dashboard)
        for target in panel.get("targets", ())
    ]


def variable_queries(dashboard: Mapping[str, Any]) -> list[VariableQuery]:
    """Every variable that is filled by a query, in the order of the dashboard."""
    return [
        VariableQuery(
            dashboard=dashboard["uid"],
            name=variable["name"],
            query=variable["query"] if isinstance(variable["query"], str) else variable["query"]["query"],
        )
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]


def expanded(expr: str, values: Mapping[str, str]) -> str:
    """The query as Grafana sends it: each `$name` and `${name}` replaced by `values[name]`.

    Names are without the dollar: `{"__rate_interval": "5m", "product_id": ".*"}`. Raises KeyError for one not given.
    """
    return _NAME.sub(lambda found: values[found[1] or found[2]], expr)
