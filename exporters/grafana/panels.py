"""The few builders that the dashboards are made of; the only file that knows grafana-foundation-sdk."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, TypeAlias

with warnings.catch_warnings():
    # Its classes of the classic schema, which every Grafana since 10 reads, warn of themselves on import.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, text, timeseries
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common as shapes
    from grafana_foundation_sdk.models import dashboard as model
    from grafana_foundation_sdk.models import text as text_shapes
    from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel: TypeAlias = timeseries.Panel | stat.Panel | table.Panel | text.Panel | heatmap.Panel
_Drawn: TypeAlias = timeseries.Panel | stat.Panel | table.Panel | heatmap.Panel

SCHEMA_VERSION = 39
"""Of the classic JSON, as Grafana 10.4 and 11.0 write it. Later ones bring it up to theirs when they load it."""

DATASOURCE = shapes.DataSourceRef(type_val="prometheus", uid="${datasource}")
DASHBOARDS = {"fleet": "Fleet", "node": "Node", "job": "Job", "product": "Product"}
NEUTRAL, GOOD, WARNING, BAD = "text", "green", "orange", "red"
PER_HOUR = "si:g/h"
PER_KWH = "suffix:g/kWh"  # Grafana puts a space before it
FIRST = ("job_id", "product_id", "instance", "source")
"""Labels that say what a line of a table is about, in the order of its columns; the others follow by their names."""


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query and how Grafana names its series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """What a table shows of one query: a value with its unit, or, without a name, the labels alone.

    `words`: what values mean, and the colour of each.
    """

    expr: str
    name: str = ""
    unit: str = "none"
    words: Mapping[str, tuple[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """A list to choose from: `label` of `metric`. `all_value` is what stands for all of it; "": one must be chosen."""

    name: str
    title: str
    metric: str
    label: str
    all_value: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A headline and its panels; each line of panels is 24 wide."""

    title: str
    panels: Sequence[Panel]


def link(to: str, label: str, *, in_table: bool = False) -> tuple[str, str]:
    """(title, URL) that opens dashboard `to` for the `label` of what was clicked, at the same time and data source."""
    value = f"__data.fields.{label}" if in_table else f"__field.labels.{label}"
    # An id may have any character: by itself Grafana leaves `&`, `#` and `+` in a link as they are.
    chosen = f"var-{label}=${{{value}:percentencode}}"
    return (
        f"{DASHBOARDS[to]}: ${{{value}}}",
        f"/d/wattribute-{to}?{chosen}&${{datasource:queryparam}}&${{__url_time_range}}",
    )


def graph(
    title: str,
    says: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    stacked: bool = False,
    reaches: float | None = None,
    opens: tuple[str, str] | None = None,
    empty: str = "",
) -> Panel:
    """Lines over time; absence is a gap in them. `empty` is what to show where having no series is the good case.

    `reaches` is how far the axis goes at least: by itself Grafana draws it up to 100 where all is 0.
    """
    panel = timeseries.Panel().legend(
        common.VizLegendOptions()
        .display_mode(shapes.LegendDisplayMode.LIST)
        .placement(shapes.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    panel.show_points(shapes.VisibilityMode.AUTO).span_nulls(False).axis_soft_min(0).line_width(1)
    panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
    panel.fill_opacity(40 if stacked else 0)
    if reaches is not None:
        panel.axis_soft_max(reaches)
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL).group("A"))
    if opens:
        panel.data_links([dashboard.DashboardLink(opens[0]).url(opens[1])])
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(_target(letter, query).range())
    return _framed(panel, title, says, unit, width=width, height=8, empty=empty)


def figure(
    title: str,
    says: str,
    unit: str,
    *queries: Query,
    width: int = 4,
    steps: Sequence[tuple[float | None, str]] = ((None, NEUTRAL),),
    words: Mapping[str, str] | None = None,
    empty: str = "",
) -> Panel:
    """Numbers at the end of the time shown. `steps`: from which value on which colour; `words`: what values mean.

    They have to be few, however much is chosen: of more than four nothing can be read.
    """
    panel = stat.Panel().graph_mode(shapes.BigValueGraphMode.NONE).color_mode(shapes.BigValueColorMode.VALUE)
    panel.wide_layout(False)  # names above the numbers, which leaves these more room
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    panel.thresholds(
        dashboard.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=color) for value, color in steps])
    )
    panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    if words:
        texts = {value: model.ValueMappingResult(text=word) for value, word in words.items()}
        panel.mappings([model.ValueMap(options=texts)])
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(_target(letter, query).instant())
    return _framed(panel, title, says, unit, width=width, height=4, empty=empty)


def listing(
    title: str,
    says: str,
    *columns: Column,
    width: int = 12,
    height: int = 8,
    sort: str = "",
    opens: Mapping[str, str] | None = None,
    wide: Mapping[str, int] | None = None,
    empty: str = "",
) -> Panel:
    """A table: one line for each set of labels, one column for each label and each query.

    `sort` names the column that the largest come first by; `opens` has a dashboard for each label that leads to one;
    `wide`: columns that need more than an even share of the width, in pixels.
    """
    panel = table.Panel().show_header(True)
    if empty:  # else each cell without a value says so, not only a table without lines
        panel.override_by_regexp("/.*/", [model.DynamicConfigValue(id_val="noValue", value="")])
    for label, width_px in (wide or {}).items():
        panel.override_by_name(label, [model.DynamicConfigValue(id_val="custom.width", value=width_px)])
    # `job` is what Prometheus calls the scrape: nobody's job.
    hidden, names = {"Time": True, "__name__": True, "job": True}, {}
    for letter, column in zip(ascii_uppercase, columns, strict=False):
        panel.with_target(_target(letter, Query(column.expr)).instant().format(PromQueryFormat.TABLE))
        # Grafana calls it Value where there is one query, Value #A where there are several.
        for value in (f"Value #{letter}", *(("Value",) if len(columns) == 1 else ())):
            if column.name:
                names[value] = column.name
            else:
                hidden[value] = True
        if column.name:
            panel.override_by_name(column.name, _of_column(column))
    if len(columns) > 1:
        panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    order = {label: place for place, label in enumerate(FIRST)}
    organised = {"excludeByName": hidden, "indexByName": order, "renameByName": names}
    panel.with_transformation(model.DataTransformerConfig(id_val="organize", options=organised))
    if sort:
        panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])
    for label, to in (opens or {}).items():
        named, url = link(to, label, in_table=True)
        panel.override_by_name(label, [model.DynamicConfigValue(id_val="links", value=[{"title": named, "url": url}])])
    return _framed(panel, title, says, "none", width=width, height=height, empty=empty)


def _of_column(column: Column) -> list[model.DynamicConfigValue]:
    found = [model.DynamicConfigValue(id_val="unit", value=column.unit)]
    if column.words:
        texts = {value: {"text": word, "color": color} for value, (word, color) in column.words.items()}
        found += [
            model.DynamicConfigValue(id_val="mappings", value=[{"type": "value", "options": texts}]),
            model.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
        ]
    return found


def distribution(title: str, says: str, unit: str, query: Query, *, width: int = 12, empty: str = "") -> Panel:
    """How many fell into each bucket of a histogram, over time; `query` gives counts by `le`."""
    panel = heatmap.Panel().calculate(False).cell_gap(1)
    panel.color(
        heatmap.HeatmapColorOptions()
        .mode(HeatmapColorMode.SCHEME)
        .scheme("Oranges")
        .steps(64)
        .reverse(False)
        .exponent(0.5)
        .fill("dark-orange")
    )
    panel.y_axis(heatmap.YAxisConfig().unit(unit)).tooltip(
        heatmap.HeatmapTooltip().mode(shapes.TooltipDisplayMode.SINGLE).y_histogram(False)
    )
    panel.exemplars_color("rgba(255,0,255,0.7)").show_legend()
    panel.with_target(_target("A", query).range().format(PromQueryFormat.HEATMAP))
    return _framed(panel, title, says, "short", width=width, height=8, empty=empty)


def note(title: str, says: str, markdown: str, *, width: int = 24, height: int = 4) -> Panel:
    """Words on the dashboard itself."""
    panel = text.Panel().mode(text_shapes.TextMode.MARKDOWN).content(markdown)
    return panel.title(title).description(says).span(width).height(height)


def made(
    name: str, says: str, variables: Sequence[Variable], rows: Sequence[Row], *, refresh: str = "1m"
) -> dict[str, Any]:
    """The dashboard `wattribute-NAME` as plain JSON values, its panels placed and numbered from the top."""
    board = (
        dashboard.Dashboard(f"wattribute: {DASHBOARDS[name]}")
        .uid(f"wattribute-{name}")
        .description(says)
        .tags(["wattribute", "energy", "carbon"])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh(refresh)
        .with_variable(
            dashboard.DatasourceVariable("datasource")
            .label("Data source")
            .description("The Prometheus, or what speaks its language, that scrapes the agents.")
            .type("prometheus")
            .current(model.VariableOption(text="default", value="default"))
        )
    )
    for variable in variables:
        board.with_variable(_variable(variable))
    for other, title in DASHBOARDS.items():
        if other != name:
            board.link(
                dashboard.DashboardLink(title)
                .type(model.DashboardLinkType.LINK)
                .icon("dashboard")
                .tooltip(f"The same time in {title}")
                .url(f"/d/wattribute-{other}")
                .include_vars(True)
                .keep_time(True)
            )
    for row in rows:
        board.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            board.with_panel(panel)
    built = board.build()
    built.schema_version = SCHEMA_VERSION
    for number, one in enumerate(built.panels or (), start=1):
        one.id_val = number
    plain: dict[str, Any] = json.loads(json.dumps(built, cls=JSONEncoder))
    _without_placement(plain)
    return plain


def _without_placement(plain: dict[str, Any]) -> None:
    """Takes out what the SDK's one type of link has no way to leave out: it would hide the links in a menu."""
    for one in plain["links"]:
        del one["placement"]
    for panel in plain["panels"]:
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if "links" in defaults:
            defaults["links"] = [{"title": one["title"], "url": one["url"]} for one in defaults["links"]]


def _variable(variable: Variable) -> dashboard.QueryVariable:
    query = f"label_values({variable.metric}, {variable.label})"
    built = (
        dashboard.QueryVariable(variable.name)
        .label(variable.title)
        .description(f"{variable.label} of {variable.metric}, of the time shown.")
        .datasource(DATASOURCE)
        # refId is what Grafana's own editor writes; label_values is asked of the time shown.
        .query({"query": query, "refId": f"variable-{variable.name}"})
        .definition(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        # With several to choose from Grafana escapes each as a regular expression: `=~"$name"` is safe.
        .multi(True)
    )
    if not variable.all_value:
        return built.current(model.VariableOption(text=[], value=[]))  # Grafana takes the first of the list
    everything = model.VariableOption(text=["All"], value=["$__all"])
    return built.include_all(True).all_value(variable.all_value).current(everything)


def _target(letter: str, query: Query) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(letter).datasource(DATASOURCE).expr(query.expr)
    return target.legend_format(query.legend) if query.legend else target


def _framed(panel: _Drawn, title: str, says: str, unit: str, *, width: int, height: int, empty: str = "") -> Panel:
    if empty:
        panel.no_value(empty)
    return panel.title(title).description(says).unit(unit).datasource(DATASOURCE).span(width).height(height)
