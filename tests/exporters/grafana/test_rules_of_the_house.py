"""What every panel keeps to: its data source, words, unit, place, links; and what is said of ASC^e."""

import json
import re
from itertools import combinations
from typing import Any

from tests.exporters.grafana.boards import BOARDS, NAMES, UIDS, drawn

from wattribute.exporters.grafana import panels as builders
from wattribute.exporters.grafana.queries import panels

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {"none", "short", "sci", "percentunit", "cps", "reqps", "hertz", "s", "dateTimeAsIso"} | {
    *("bytes", "joule", "watt", "massg")
}
OWN_UNITS = {builders.PER_HOUR, builders.PER_KWH}
DRAWN = list(drawn())


def test_dashboards_are_called_what_others_link_to() -> None:
    assert {board["uid"] for board in BOARDS.values()} == UIDS
    assert len({board["title"] for board in BOARDS.values()}) == len(NAMES)
    assert {board["schemaVersion"] for board in BOARDS.values()} == {builders.SCHEMA_VERSION}
    assert not any(board["editable"] for board in BOARDS.values())


def test_every_panel_asks_the_data_source_that_was_chosen() -> None:
    for name, panel in DRAWN:
        assert panel["datasource"] == SOURCE, (name, panel["title"])
        assert panel["targets"], (name, panel["title"])
        assert all(target["datasource"] == SOURCE for target in panel["targets"]), (name, panel["title"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_every_panel_has_a_title_of_its_own_and_says_what_it_shows() -> None:
    for name, board in BOARDS.items():
        shown = [panel for panel in panels(board) if panel["type"] != "row"]
        assert len({panel["title"] for panel in shown}) == len(shown), name
        for panel in shown:
            assert panel["description"].endswith("."), (name, panel["title"])


def test_every_value_has_a_unit_that_grafana_knows() -> None:
    for name, panel in DRAWN:
        config = panel["fieldConfig"]
        properties = [one for override in config["overrides"] for one in override["properties"]]
        units = [config["defaults"]["unit"], *(one["value"] for one in properties if one["id"] == "unit")]
        assert set(units) <= UNITS | OWN_UNITS, (name, panel["title"], units)


def test_our_units_are_of_the_list_that_comes_with_the_sdk() -> None:
    from grafana_foundation_sdk.models import units

    assert {value for value in vars(units).values() if isinstance(value, str)} >= UNITS


def test_what_grows_with_the_choice_is_a_table_or_a_graph() -> None:
    """Of ten numbers in a small panel none can be read."""
    for name, panel in DRAWN:
        if panel["type"] == "stat":
            legends = {target.get("legendFormat", "") for target in panel["targets"]}
            assert legends <= {"", "all", "{{term}}"}, (name, panel["title"])


def test_a_cell_without_a_value_does_not_say_what_an_empty_table_says() -> None:
    for name, panel in DRAWN:
        if panel["type"] == "table" and "noValue" in panel["fieldConfig"]["defaults"]:
            silent = {"matcher": {"id": "byRegexp", "options": "/.*/"}, "properties": [{"id": "noValue", "value": ""}]}
            assert silent in panel["fieldConfig"]["overrides"], (name, panel["title"])


def test_panels_lie_on_the_grid_and_not_on_each_other() -> None:
    for name, board in BOARDS.items():
        cells = [(panel["title"], panel["gridPos"]) for panel in panels(board)]
        assert len({panel["id"] for panel in panels(board)}) == len(cells)
        assert all(at["x"] >= 0 and at["x"] + at["w"] <= 24 for _, at in cells), name
        for (one, here), (other, there) in combinations(cells, 2):
            apart = (
                here["x"] + here["w"] <= there["x"]
                or there["x"] + there["w"] <= here["x"]
                or here["y"] + here["h"] <= there["y"]
                or there["y"] + there["h"] <= here["y"]
            )
            assert apart, (name, one, other)


def test_what_names_asce_says_that_it_is_a_price() -> None:
    for name, panel in DRAWN:
        rest = json.dumps({key: value for key, value in panel.items() if key != "description"})
        if "ASC^e" in rest or "asce_grams" in rest:
            assert "ASC^e is a price, not an inventory" in panel["description"], (name, panel["title"])


def test_the_total_of_an_organisation_is_of_its_three_terms() -> None:
    sums = [panel for _, panel in DRAWN if "of which ASC^e is never a part" in panel["description"]]
    assert len(sums) >= 5
    for panel in sums:
        for target in panel["targets"]:
            assert 'term=~"operation|cooling|hardware"' in target["expr"], panel["title"]


def test_links_open_dashboards_that_are_there_with_variables_that_they_have() -> None:
    for name, board in BOARDS.items():
        assert {one["url"] for one in board["links"]} == {f"/d/{uid}" for uid in UIDS - {board["uid"]}}
        assert all(one["keepTime"] and one["includeVars"] for one in board["links"]), name
    for name, panel in DRAWN:
        for url in _links(panel):
            found = re.fullmatch(
                r"/d/wattribute-(\w+)\?var-(\w+)=\$\{__(?:data\.fields|field\.labels)\.(\w+):percentencode\}&.*", url
            )
            assert found is not None, (name, url)
            to, variable, label = found.groups()
            assert variable == label
            assert variable in {one["name"] for one in BOARDS[to]["templating"]["list"]}, (name, url)
            assert "${datasource:queryparam}" in url and "${__url_time_range}" in url


def _links(panel: Any) -> list[str]:
    config = panel["fieldConfig"]
    properties = [one for override in config["overrides"] for one in override["properties"]]
    found = [
        *config["defaults"].get("links", ()),
        *(link for one in properties if one["id"] == "links" for link in one["value"]),
    ]
    return [link["url"] for link in found]
