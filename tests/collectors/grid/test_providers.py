"""Each provider as it really answers, and each way in which an answer can't be believed."""

import json
from collections.abc import Mapping

import pytest
from tests.doubles.grid_server import KEY, PASSWORD, TOKEN, USER, GridServer, says

from wattribute.agent.core.intensity import FactorType, g_per_kwh_of_lb_per_mwh
from wattribute.collectors.grid.electricitymaps import ElectricityMaps
from wattribute.collectors.grid.feed import Answer, Feed, Unanswered
from wattribute.collectors.grid.keys import Keys
from wattribute.collectors.grid.prometheus import Prometheus
from wattribute.collectors.grid.uk import GreatBritain, is_zone
from wattribute.collectors.grid.watttime import WattTime

S = 10**9
T = 1_700_002_800  # a full hour
NOW = T + 1200
WATT_KEYS = {"WATTTIME_USER": USER, "WATTTIME_PASSWORD": PASSWORD}


def maps(
    server: GridServer, zone: str = "DE", key: str = KEY, factor_type: FactorType = "lifecycle"
) -> ElectricityMaps:
    keys = Keys(("ELECTRICITYMAPS_API_KEY",), "", {"ELECTRICITYMAPS_API_KEY": key})
    return ElectricityMaps(zone, factor_type, keys, url=server.url, timeout_s=5)


def watts(server: GridServer, environment: Mapping[str, str] = WATT_KEYS) -> WattTime:
    keys = Keys(("WATTTIME_USER", "WATTTIME_PASSWORD"), "", environment)
    return WattTime("CAISO_NORTH", keys, url=server.url, timeout_s=5)


def british(server: GridServer, zone: str = "") -> GreatBritain:
    return GreatBritain(zone, url=server.url, timeout_s=5)


def prom(server: GridServer, pue_query: str = "") -> Prometheus:
    return Prometheus("DE", "lifecycle", None, url=server.url + "/", query="grid", pue_query=pue_query, timeout_s=5)


def ask(feed: Feed, hours: float = 3, now_s: float = NOW) -> Answer:
    now = round(now_s * S)
    return feed.fetch(now - round(hours * 3600 * S), now + feed.ahead_ns, now)


def shown(answer: Answer) -> list[tuple[int, int, float, str]]:
    """(start and end in seconds from T, g/kWh, status)."""
    return [
        (one.valid_from_unix_ns // S - T, one.valid_until_unix_ns // S - T, one.g_per_kwh, one.status)
        for one in answer.values
    ]


def refused(feed: Feed, hours: float = 3) -> Unanswered:
    with pytest.raises(Unanswered) as caught:
        ask(feed, hours)
    return caught.value


def test_electricity_maps_gives_the_past_and_the_running_hour(server: GridServer) -> None:
    server.maps = {T - 7200: (302, False), T - 3600: (310, True), T: (295, True)}
    assert shown(ask(maps(server))) == [
        (-7200, -3600, 302, "final"),
        (-3600, 0, 310, "estimated"),
        (0, 3600, 295, "estimated"),
    ]
    latest, past = server.asked
    assert latest.path == "/v3/carbon-intensity/latest"
    assert latest.query == {"zone": "DE", "emissionFactorType": "lifecycle"}
    assert past.path == "/v3/carbon-intensity/past-range"
    assert past.query["start"] == "2023-11-14T20:00:00Z"
    assert latest.headers["auth-token"] == KEY


def test_a_plan_without_past_range_gives_history(server: GridServer) -> None:
    server.without_range = True
    server.maps = {T - 3600: (302, False), T: (295, True)}
    feed = maps(server)
    for _ in range(2):
        assert shown(ask(feed)) == [(-3600, 0, 302, "final"), (0, 3600, 295, "estimated")]
    assert [path.rpartition("/")[2] for path in server.paths()] == [
        "latest",
        "past-range",
        "history",
        "latest",
        "history",
    ]


def test_the_present_is_worth_having_without_the_past(server: GridServer) -> None:
    server.maps = {T: (295, True)}
    server.trouble = lambda request, path: path.endswith("past-range") and says(503)(request, path)
    answer = ask(maps(server))
    assert (shown(answer), answer.refused) == ([(0, 3600, 295, "estimated")], {"server": 1})


def test_an_hour_that_electricity_maps_doesnt_know_is_a_hole(server: GridServer) -> None:
    server.maps = {T - 7200: (302, False), T - 3600: (None, True), T: (295, True)}
    assert [start for start, *_ in shown(ask(maps(server)))] == [-7200, 0]


def test_electricity_maps_of_another_zone_or_kind_is_refused(server: GridServer) -> None:
    server.maps = {T: (295, True)}
    assert refused(maps(server, zone="FR")).reason == "zone"
    error = refused(maps(server, factor_type="direct"))
    assert error.reason == "factor_type"
    assert '"lifecycle" factors, not direct ones' in error.cause


def test_a_wrong_key_is_said_without_the_key_that_the_server_repeats(server: GridServer) -> None:
    error = refused(maps(server, key="secret-and-wrong"))
    assert error.reason == "auth"
    assert "Invalid auth-token ***" in error.cause
    assert "secret-and-wrong" not in str(error)


def test_watttime_logs_in_and_gives_marginal_grams(server: GridServer) -> None:
    server.watts = {T - 300: 870.0, T: 1000.0}
    feed = watts(server)
    answer = ask(feed)
    assert shown(answer) == [(-300, 0, 394.6253619, "final"), (0, 300, 453.59237, "final")]
    assert feed.about.method == "marginal, direct"
    ask(feed)
    assert server.paths() == ["/login", "/v3/historical", "/v3/historical"]  # one login for both
    assert server.asked[1].query["signal_type"] == "co2_moer"
    assert float(g_per_kwh_of_lb_per_mwh(870)) == answer.values[0].g_per_kwh


def test_a_token_that_ended_early_is_exchanged_once(server: GridServer) -> None:
    server.watts = {T: 870.0}
    feed = watts(server)
    ask(feed)
    server.token = "another"
    ask(feed)
    assert server.paths() == ["/login", "/v3/historical", "/v3/historical", "/login", "/v3/historical"]


def test_a_wrong_password_is_said_without_it(server: GridServer) -> None:
    error = refused(watts(server, {"WATTTIME_USER": USER, "WATTTIME_PASSWORD": "hunter2-x"}))
    assert error.reason == "auth"
    assert "hunter2" not in str(error) and TOKEN not in str(error)


def test_watttime_in_other_units_or_of_another_region_is_refused(server: GridServer) -> None:
    server.watts = {T: 37.0}
    server.units = "percentile"
    assert refused(watts(server)).reason == "units"
    keys = Keys(("WATTTIME_USER", "WATTTIME_PASSWORD"), "", WATT_KEYS)
    assert refused(WattTime("PJM_DC", keys, url=server.url, timeout_s=5)).reason == "zone"


def test_great_britain_forecasts_then_knows(server: GridServer) -> None:
    server.british = {T - 1800: (120, 131), T: (150, None), T + 1800: (160, None), T + 3600: (None, None)}
    feed = british(server)
    assert shown(ask(feed)) == [(-1800, 0, 131, "final"), (0, 1800, 150, "forecast"), (1800, 3600, 160, "forecast")]
    assert server.paths() == ["/intensity/2023-11-14T20:20Z/2023-11-15T23:20Z"]
    assert (feed.settles, feed.about.zone, feed.about.method) == (True, "GB", "average, direct")


@pytest.mark.parametrize(("zone", "path"), [("13", "regionid/13"), ("SW1A", "postcode/SW1A")])
def test_a_part_of_great_britain_has_forecasts_that_never_settle(server: GridServer, zone: str, path: str) -> None:
    server.british = {T: (150, 140)}
    feed = british(server, zone)
    assert shown(ask(feed)) == [(0, 1800, 150, "forecast")]
    assert server.paths()[0].endswith(path)
    assert (feed.settles, feed.about.zone) == (False, f"GB-{zone}")


@pytest.mark.parametrize("zone", ["", "GB", "1", "17", "SW1A", "M15", "BS7"])
def test_a_place_of_great_britain(zone: str) -> None:
    assert is_zone(zone)


@pytest.mark.parametrize("zone", ["0", "18", "UK", "London", "SW1A 1AA", "sw1a", "../x", "1/../2"])
def test_no_place_of_great_britain(zone: str) -> None:
    assert not is_zone(zone)


def test_prometheus_gives_minutes_and_the_pue(server: GridServer) -> None:
    server.prom = {"grid": {T: "300.5", T + 60: "301"}, "pue": {T: "1.25", T + 60: "0.9"}}
    answer = ask(prom(server, "pue"))
    assert shown(answer) == [(0, 60, 300.5, "final"), (60, 120, 301, "final")]
    assert answer.pues == [(T * S, 1.25)]
    assert answer.refused == {"pue": 1}
    assert server.asked[0].query == {"query": "grid", "start": str(NOW - 10800), "end": str(NOW), "step": "60"}


@pytest.mark.parametrize(("series", "words"), [(0, "gives 0 series"), (3, "gives 3 series")])
def test_a_query_gives_one_series(server: GridServer, series: int, words: str) -> None:
    server.prom = {"grid": {T: "300"}}
    server.prom_series = series
    error = refused(prom(server))
    assert error.reason == "series_count" and words in error.cause


@pytest.mark.parametrize(
    ("value", "reason"), [("NaN", "nan"), ("+Inf", "nan"), ("-1", "range"), ("1500.1", "range"), ("x", "garbage")]
)
def test_a_value_that_cant_be_is_refused_by_name(server: GridServer, value: str, reason: str) -> None:
    server.prom = {"grid": {T: value}}
    assert refused(prom(server)).reason == reason


def test_one_bad_value_among_good_ones_is_left_out_and_counted(server: GridServer) -> None:
    server.prom = {"grid": {T: "300", T + 60: "NaN", T + 120: "-213", T + 180: "310"}}
    answer = ask(prom(server))
    assert [g for _, _, g, _ in shown(answer)] == [300, 310]
    assert answer.refused == {"nan": 1, "range": 1}
    assert "-213" in answer.why


def test_a_clock_that_is_behind_is_named(server: GridServer) -> None:
    """What isn't a forecast can't be of the future: then it is this machine's clock, or the server's, that is off."""
    server.maps = {T + 7200: (295, True)}
    error = refused(maps(server))
    assert error.reason == "future"
    assert "this machine's clock says 2023-11-14T23:20:00Z" in error.cause


def test_forecasts_may_be_of_the_future_and_what_is_called_actual_may_not(server: GridServer) -> None:
    server.british = {T: (150, None), T + 3600: (150, 151)}
    answer = ask(british(server))
    assert (len(answer.values), answer.refused) == (1, {"future": 1})


GOOD_POINT = {"from": "2023-11-14T23:00Z", "to": "2023-11-14T23:30Z", "intensity": {"forecast": 1, "actual": 2}}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("", "garbage"),
        ("<html>hello</html>", "garbage"),
        ("[]", "garbage"),
        ("{}", "garbage"),
        ('{"data": null}', "garbage"),
        ('{"data": [' * 5000, "garbage"),
        ({"data": []}, "empty"),
        ({"data": [{**GOOD_POINT, "intensity": {"forecast": "12", "actual": None}}]}, "garbage"),
        ({"data": [{**GOOD_POINT, "from": "yesterday"}]}, "garbage"),
        ({"data": [{**GOOD_POINT, "from": "2023-11-14T23:00"}]}, "garbage"),
        ({"data": [{**GOOD_POINT, "to": "2023-11-14T23:00Z"}]}, "garbage"),
        ({"data": [GOOD_POINT, GOOD_POINT]}, "order"),
        ({"data": [GOOD_POINT, {**GOOD_POINT, "from": "2023-11-14T22:30Z"}]}, "order"),
        ({"data": [{**GOOD_POINT, "intensity": {"forecast": 1, "actual": -5}}]}, "range"),
        ({"data": [{**GOOD_POINT, "intensity": {"forecast": 1, "actual": 99999}}]}, "range"),
        ({"data": [{**GOOD_POINT, "intensity": {"forecast": None, "actual": None}}]}, "empty"),
        (
            '{"data": [{"from": "2023-11-14T23:00Z", "to": "2023-11-14T23:30Z", "intensity": {"actual": NaN}}]}',
            "garbage",
        ),
        ('{"data": [{"from": "2023-11-14T23:00Z", "to": "2023-11-14T23:30Z", "intensity": {"actual": 1e999}}]}', "nan"),
    ],
)
def test_what_isnt_as_documented_is_refused_by_name(server: GridServer, document: object, reason: str) -> None:
    body = document if isinstance(document, str) else json.dumps(document)
    server.trouble = says(200, body.encode())
    found = refused(british(server)).reason
    assert found == reason or (reason == "nan" and found == "garbage")  # a JSON reader may refuse 1e999 itself


@pytest.mark.parametrize("feed", [maps, watts, british, prom])
def test_garbage_is_refused_by_every_provider(server: GridServer, feed: object) -> None:
    for body in (b"", b"\x00\xff", b"null", b"[[]]", b'{"zone": 1}', b"{" * 3000):
        server.trouble = says(200, body)
        assert callable(feed)
        assert refused(feed(server)).reason == "garbage"
