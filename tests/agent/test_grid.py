"""The grid as the node asks it: a price at once and always, whatever the provider does; what was used stays used."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from tests.doubles.grid_server import KEY, PASSWORD, USER, GridServer, hangs, says

from wattribute.agent.config import Config
from wattribute.agent.core.accounting import Price
from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.intensity import price_of, rfc3339
from wattribute.agent.grid import Fixed, fallbacks, open_feed, open_grid
from wattribute.agent.grid_followed import HORIZON_NS, Followed
from wattribute.collectors.grid.cache import NAME, Cache

S = 10**9
H = 3600 * S
T = 1_700_002_800  # a full hour
ENVIRONMENT = {"ELECTRICITYMAPS_API_KEY": KEY, "WATTTIME_USER": USER, "WATTTIME_PASSWORD": PASSWORD}


class HandClock:
    """Both clocks, moved by hand."""

    def __init__(self, unix_s: float = T + 1200) -> None:
        self.unix_ns = round(unix_s * S)
        self.boot_ns = 500 * S

    def monotonic_ns(self) -> int:
        return self.boot_ns

    def time_ns(self) -> int:
        return self.unix_ns

    def asleep_ns(self) -> int:
        return 0

    def pass_s(self, seconds: float) -> None:
        self.unix_ns += round(seconds * S)
        self.boot_ns += round(seconds * S)


def config(carbon: Mapping[str, object], provider: Mapping[str, object] | None = None) -> Config:
    way = {} if "intensity_g_per_kwh" in carbon else {"intensity_g_per_kwh": None}
    return msgspec.convert({"carbon": {**way, **carbon}, "provider": provider or {}}, Config)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GridServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with GridServer() as running:
        yield running


class Bench:
    """A Followed over Electricity Maps, asked by hand."""

    def __init__(self, server: GridServer, state_dir: Path, clock: HandClock, **carbon: object) -> None:
        self.server, self.clock = server, clock
        configured = config(
            {"provider": "electricitymaps", **carbon}, {"zone": "DE", "url": server.url, "timeout_s": 0.5}
        )
        feed = open_feed(configured, ENVIRONMENT, needs_key=True)
        fallback = next(link.value for link in fallbacks(configured) if link.value is not None)
        self.grid = Followed(feed, fallback, 1.0, clock, cache=Cache(state_dir, feed.about))

    def ask(self) -> None:
        self.grid.ask()
        self.grid.look()

    def seen(self, ago_s: float = 0) -> tuple[float, str]:
        value = self.grid.now(self.clock.unix_ns - round(ago_s * S))
        return value.gco2e_per_kwh, value.quality

    def failures(self) -> Mapping[str, int]:
        (health,) = self.grid.health()
        return health.failures


@pytest.fixture
def bench(server: GridServer, tmp_path: Path) -> Bench:
    return Bench(server, tmp_path, HandClock())


@pytest.mark.parametrize(
    ("carbon", "configured", "g_per_kwh", "provider", "method", "quality", "band"),
    [
        (
            {"intensity_g_per_kwh": 480.0},
            False,
            480,
            "default",
            "average, lifecycle",
            "default",
            (Fraction(20, 480), Fraction(1306, 480)),
        ),
        (
            {"intensity_g_per_kwh": 480.0, "factor_type": "direct"},
            False,
            475,
            "default",
            "average, direct",
            "default",
            (Fraction(0), Fraction(1306, 475)),
        ),
        (
            {"intensity_g_per_kwh": 50.0},
            True,
            50,
            "static",
            "average, lifecycle",
            "static",
            (Fraction(1, 2), Fraction(2)),
        ),
        (
            {"mix": {"coal": 0.8, "solar": 0.2}},
            True,
            665.6,
            "mix",
            "average, lifecycle",
            "static",
            (Fraction("595.6") / Fraction("665.6"), Fraction(764) / Fraction("665.6")),
        ),
        (
            {"mix": {"coal": 0.8, "solar": 0.2}, "factor_type": "direct"},
            True,
            608,
            "mix",
            "average, direct",
            "static",
            (Fraction(1), Fraction("749.6") / 608),
        ),
        ({"zone": "FR"}, True, 56.039, "table", "average, lifecycle", "static", (Fraction(1, 2), Fraction(2))),
        (
            {"zone": "US-CA", "factor_type": "direct"},
            True,
            179.06420631253,
            "table",
            "average, direct",
            "static",
            (Fraction(1, 2), Fraction(2)),
        ),
        (
            {"zone": "FRA", "table": "codecarbon"},
            True,
            56.039,
            "table",
            "average, lifecycle",
            "static",
            (Fraction(1, 2), Fraction(2)),
        ),
    ],
)
def test_what_doesnt_change_is_one_value_without_a_thread(
    carbon: dict[str, object],
    configured: bool,
    g_per_kwh: float,
    provider: str,
    method: str,
    quality: str,
    band: tuple[Fraction, Fraction],
) -> None:
    clock = HandClock()
    threads = threading.active_count()
    grid = open_grid(config({"pue": 1.5, **carbon}), clock, None, configured)
    assert isinstance(grid, Fixed) and threading.active_count() == threads
    value = grid.now(clock.unix_ns)
    assert (value.gco2e_per_kwh, value.provider, value.method, value.quality) == (g_per_kwh, provider, method, quality)
    assert value.final and value.source
    assert all(abs(told - exact) < Fraction(1, 10**12) for told, exact in zip(grid.band(), band, strict=True))
    assert grid.prices.at(clock.unix_ns) == price_of(value.gco2e_per_kwh, 1.5)
    assert (grid.pue(0), grid.health(), grid.provisional(0, 2**62)) == (1.5, [], False)
    assert grid.final_price(clock.unix_ns, clock.unix_ns + H) == grid.prices.at(0)
    assert grid.final_price(clock.unix_ns - 1, clock.unix_ns) is None  # what another configuration booked
    grid.close()


def test_a_zone_of_the_other_kind_doesnt_open() -> None:
    with pytest.raises(ConfigError, match="never mixed"):
        open_grid(config({"zone": "US-CA"}), HandClock(), None, True)


def test_a_node_starts_with_a_price_and_an_answer_replaces_it_from_then_on(bench: Bench) -> None:
    bench.server.maps = {T - 3600: (302, False), T: (295, True)}
    assert bench.seen() == (380.95, "static")  # the yearly figure of DE
    assert bench.grid.prices.at(bench.clock.unix_ns) == price_of(380.95, 1.0)
    opened = bench.clock.unix_ns
    bench.clock.pass_s(10)
    bench.ask()
    assert bench.seen() == (295, "estimated")
    assert bench.seen(ago_s=5) == (380.95, "static")  # it was in force, and stays so
    assert bench.seen(ago_s=600) == (295, "estimated")  # nothing was booked then: what is known counts
    over = bench.grid.prices.over(opened, opened + 20 * S)
    assert over == price_of((380.95 + 295) / 2, 1.0)
    (health,) = bench.grid.health()
    assert health.up and health.name == "grid" and health.failures == {}
    assert health.last_read_unix_ns == bench.clock.unix_ns


def test_estimated_then_final_settles_and_changes_nothing_that_was_used(bench: Bench) -> None:
    bench.server.maps = {T - 3600: (302, False), T: (295, True)}
    bench.ask()
    start = bench.clock.unix_ns
    bench.clock.pass_s(600)
    window = (start, bench.clock.unix_ns)
    booked = bench.grid.prices.over(*window)
    assert booked == price_of(295.0, 1.0)
    assert bench.grid.provisional(*window)
    assert bench.grid.final_price(*window) is None
    bench.clock.pass_s(7200)
    bench.server.maps |= {T: (280, False), T + 3600: (270, False), T + 7200: (260, True)}
    bench.ask()
    assert bench.grid.final_price(*window) == price_of(280.0, 1.0)
    assert bench.grid.prices.over(*window) == booked
    assert bench.grid.provisional(*window)  # until it is corrected, or the time is over
    bench.clock.pass_s(HORIZON_NS / S)
    assert not bench.grid.provisional(*window)


def test_what_was_final_when_it_was_used_isnt_provisional(bench: Bench) -> None:
    bench.server.maps = {T: (295, False)}
    bench.ask()
    start = bench.clock.unix_ns
    assert not bench.grid.provisional(start, start + 600 * S)
    assert bench.grid.provisional(start, T * S + H + 1)  # held on beyond its hour
    low, high = bench.grid.band()
    assert abs(low - Fraction(410, 490)) < Fraction(1, 10**9) > abs(high - Fraction(650, 490))


def test_time_on_the_fallback_is_settled_when_the_provider_is_back(bench: Bench) -> None:
    bench.server.trouble = says(503)
    bench.ask()
    start = bench.clock.unix_ns
    bench.clock.pass_s(300)
    window = (start, bench.clock.unix_ns)
    assert bench.grid.prices.over(*window) == price_of(380.95, 1.0)
    assert bench.grid.provisional(*window)
    bench.server.trouble = None
    bench.server.maps = {T: (295, False)}
    bench.ask()
    assert bench.grid.final_price(*window) == price_of(295.0, 1.0)


def test_a_provider_that_is_gone_costs_quality_step_by_step_and_says_so_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wattribute")
    bench.server.maps = {T: (295, True)}
    bench.ask()
    bench.server.trouble = says(500)
    seen: list[tuple[float, str]] = []
    for _ in range(40):
        bench.clock.pass_s(900)
        bench.ask()
        if not seen or seen[-1] != bench.seen():
            seen.append(bench.seen())
    assert seen == [(295, "estimated"), (295, "stale"), (380.95, "static")]
    warned = [record.message for record in caplog.records if "in the place of a live value" in record.message]
    assert len(warned) == 2 and "stale" in warned[0] and "static" in warned[1]
    assert len([record for record in caplog.records if "it answers 500" in record.message]) == 1
    (health,) = bench.grid.health()
    assert not health.up and health.failures == {"server": 40}
    assert health.gap_ns > 2 * H
    bench.server.trouble = None
    now_h = bench.clock.unix_ns // H * 3600
    bench.server.maps = {now_h: (100, False)}
    bench.ask()
    assert bench.seen() == (100, "final")
    assert "live again" in caplog.text and "answers again" in caplog.text


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (says(429, Retry_After="1800"), "rate_limited"),
        (says(500), "server"),
        (says(200, b"<html>"), "garbage"),
        (says(200, b'{"zone":"FR","carbonIntensity":1,"datetime":"2023-11-14T23:00:00Z"}'), "zone"),
        (says(200, b'{"zone":"DE","carbonIntensity":-1,"datetime":"2023-11-14T23:00:00Z"}'), "range"),
        (says(200, b'{"zone":"DE","carbonIntensity":4e5,"datetime":"2023-11-14T23:00:00Z"}'), "range"),
        (says(200, b'{"zone":"DE","carbonIntensity":NaN,"datetime":"2023-11-14T23:00:00Z"}'), "garbage"),
        (says(200, b'{"zone":"DE","carbonIntensity":5,"datetime":"2024-11-14T23:00:00Z"}'), "future"),
        (says(301, Location="http://127.0.0.1:9/"), "redirect"),
        (hangs, "timeout"),
    ],
)
def test_whatever_goes_wrong_is_counted_by_name_and_the_last_value_holds(
    bench: Bench, trouble: Callable[..., bool], reason: str
) -> None:
    bench.server.maps = {T: (295, False)}
    bench.ask()
    bench.server.trouble = trouble
    bench.clock.pass_s(3600)
    bench.ask()
    assert bench.failures() == {reason: 1}
    assert bench.seen() == (295, "stale")
    (health,) = bench.grid.health()
    assert not health.up and health.why
    assert KEY not in str(health)


def asks_in_s(bench: Bench) -> float:
    return (bench.grid._ask_at_ns - bench.clock.boot_ns) / S


def test_it_backs_off_and_keeps_to_what_the_server_asks_for(bench: Bench) -> None:
    bench.server.trouble = says(500)
    waits = []
    for _ in range(12):
        bench.ask()
        waits.append(asks_in_s(bench))
    for n, wait_s in enumerate(waits):
        base = min(900, 10 * 2**n)
        assert 0.75 * base <= wait_s <= 1.25 * base
    bench.server.trouble = says(429, Retry_After="2400")
    bench.ask()
    assert asks_in_s(bench) == 2400
    bench.server.trouble = None
    bench.server.maps = {T: (295, False)}
    bench.ask()
    assert 0.75 * 900 <= asks_in_s(bench) <= 1.25 * 900


def test_it_asks_for_two_days_at_first_then_for_what_isnt_final(bench: Bench) -> None:
    bench.server.maps = {T - 3600 * n: (300, n == 0) for n in range(60)}
    bench.ask()
    first = bench.server.asked[-1].query["start"]
    assert first == rfc3339((bench.clock.unix_ns - HORIZON_NS) // H * H)
    bench.clock.pass_s(900)
    bench.ask()
    assert bench.server.asked[-1].query["start"] == rfc3339((bench.clock.unix_ns - 2 * H) // H * H)
    bench.server.maps |= {T + 3600 * n: (300, False) for n in range(20)}
    bench.clock.pass_s(19 * 3600)
    bench.ask()
    assert bench.server.asked[-1].query["start"] == rfc3339(T * S)  # since then nothing is final


def test_a_restart_begins_with_what_was_kept(bench: Bench, tmp_path: Path) -> None:
    bench.server.maps = {T - 3600: (302, False), T: (295, True)}
    bench.ask()
    since = bench.clock.unix_ns
    bench.clock.pass_s(1200)
    again = Bench(bench.server, tmp_path, bench.clock)
    assert again.seen() == (295, "estimated")  # its hour isn't over
    again.clock.pass_s(3600)
    assert again.seen() == (295, "stale")
    again.clock.pass_s(7 * 3600)
    assert again.seen() == (380.95, "static")
    again.server.maps |= {T: (280, False)}
    again.ask()
    assert again.grid.final_price(since, since + 60 * S) == price_of(280.0, 1.0)  # booked before the restart
    assert again.grid.final_price(since - 1, since) is None  # before this source was in use


def test_the_cache_of_another_zone_settles_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.server.maps = {T: (295, False)}
    bench.ask()
    booked = bench.clock.unix_ns
    bench.clock.pass_s(600)
    cache = tmp_path / NAME
    cache.write_text(cache.read_text().replace("| DE |", "| FR |"))
    again = Bench(bench.server, tmp_path, bench.clock)
    assert again.seen() == (380.95, "static")
    again.ask()
    assert again.grid.final_price(booked, booked + S) is None


def test_a_damaged_cache_costs_nothing_but_a_warning(
    server: GridServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).write_text("{")
    bench = Bench(server, tmp_path, HandClock())
    assert "isn't used" in caplog.text
    assert bench.seen() == (380.95, "static")
    server.maps = {T: (295, False)}
    bench.ask()
    assert bench.failures() == {"cache": 1}
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()
    for _ in range(3):
        bench.ask()
    assert bench.failures() == {"cache": 4}
    assert caplog.text.count("can't be written") == 1
    assert bench.seen() == (295, "final") and bench.grid.health()[0].up


@pytest.mark.parametrize(("number", "seen"), [(None, (380.95, "static")), (123.0, (123.0, "fallback"))])
def test_the_configured_fallback_goes_before_the_zones_figure(
    server: GridServer, tmp_path: Path, number: float | None, seen: tuple[float, str]
) -> None:
    bench = Bench(server, tmp_path, HandClock(), fallback_g_per_kwh=number)
    assert bench.seen() == seen


@pytest.mark.parametrize(
    ("carbon", "provider", "links"),
    [
        ({"provider": "electricitymaps"}, {"zone": "US-CAL-CISO"}, [None, 369.473, 480]),
        ({"provider": "electricitymaps"}, {"zone": "XX"}, [None, None, 480]),
        ({"provider": "electricitymaps", "factor_type": "direct"}, {"zone": "DE"}, [None, None, 475]),
        ({"provider": "uk", "factor_type": "direct"}, {}, [None, None, 475]),
        ({"provider": "watttime", "factor_type": "direct"}, {"zone": "CAISO_NORTH"}, [None, None, 475]),
        ({"provider": "prometheus", "fallback_g_per_kwh": 5}, {"zone": "FR"}, [5, 56.039, 480]),
    ],
)
def test_the_chain_never_leaves_its_kind_of_factor(
    carbon: dict[str, object], provider: dict[str, object], links: list[float | None]
) -> None:
    chain = fallbacks(config(carbon, provider))
    assert [link.value and link.value.gco2e_per_kwh for link in chain] == links
    kind = carbon.get("factor_type", "lifecycle")
    assert all(link.value is None or link.value.method == f"average, {kind}" for link in chain)
    assert all(link.value or link.why for link in chain)


def test_a_marginal_value_says_so(server: GridServer, tmp_path: Path) -> None:
    server.watts = {T + 900: 1000.0}
    configured = config({"provider": "watttime", "factor_type": "direct"}, {"zone": "CAISO_NORTH", "url": server.url})
    clock = HandClock()
    grid = Followed(open_feed(configured, ENVIRONMENT, needs_key=True), fallbacks(configured)[-1].value, 1.0, clock)
    grid.ask()
    value = grid.now(clock.unix_ns - 200 * S)
    assert (value.gco2e_per_kwh, value.method, value.zone) == (453.59237, "marginal, direct", "CAISO_NORTH")
    assert grid.now(0).method == "average, direct"


def test_great_britains_boundaries_are_known_ahead(server: GridServer) -> None:
    server.british = {T: (150, None), T + 1800: (160, None), T + 3600: (170, None)}
    configured = config({"provider": "uk", "factor_type": "direct"}, {"url": server.url})
    clock = HandClock()
    grid = Followed(open_feed(configured, {}, needs_key=True), fallbacks(configured)[-1].value, 1.0, clock)
    grid.ask()
    start = (T + 1500) * S
    assert grid.prices.over(start, start + 600 * S) == price_of(155.0, 1.0)  # half of it on each side of 23:30
    server.british |= {T: (150, 140), T + 1800: (161, 130)}
    clock.pass_s(3600)
    grid.ask()
    assert grid.final_price(start, start + 600 * S) == price_of(135.0, 1.0)


def test_a_part_of_great_britain_is_never_provisional(server: GridServer) -> None:
    server.british = {T: (150, None)}
    configured = config({"provider": "uk", "factor_type": "direct"}, {"url": server.url, "zone": "13"})
    clock = HandClock()
    grid = Followed(open_feed(configured, {}, needs_key=True), fallbacks(configured)[-1].value, 1.0, clock)
    grid.ask()
    assert grid.now(clock.unix_ns).quality == "forecast"
    assert not grid.provisional(clock.unix_ns, clock.unix_ns + S)


def test_prometheus_gives_the_pue_too(server: GridServer) -> None:
    server.prom = {"grid": {T + 1140: "300", T + 1200: "310"}, "pue": {T + 1140: "1.5", T + 1200: "1.25"}}
    configured = config(
        {"provider": "prometheus", "pue": 1.1}, {"url": server.url, "query": "grid", "pue_query": "pue"}
    )
    clock = HandClock()
    grid = Followed(open_feed(configured, {}, needs_key=True), fallbacks(configured)[-1].value, 1.1, clock)
    assert grid.pue(clock.unix_ns) == 1.1
    grid.ask()
    assert (grid.pue(clock.unix_ns), grid.now(clock.unix_ns).gco2e_per_kwh) == (1.25, 310)
    clock.pass_s(60)
    server.prom = {"grid": {T + 1260: "320"}, "pue": {T + 1260: "1.3"}}
    grid.ask()
    assert grid.pue(clock.unix_ns - 30 * S) == 1.25
    assert grid.final_price(clock.unix_ns - 30 * S, clock.unix_ns) == Price(310 * 10**9, 310 * 10**9 // 4)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def test_a_series_is_followed_and_what_was_used_stays(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    head = "valid_from,gco2e_per_kwh\n"
    write(path, f"{head}{rfc3339((T - 3600) * S)},300\n{rfc3339(T * S)},200\n")
    clock = HandClock()
    grid = open_grid(config({"series": str(path)}), clock, tmp_path, True, asks=False)
    assert isinstance(grid, Followed)
    assert (grid.now(clock.unix_ns).gco2e_per_kwh, grid.now(clock.unix_ns).quality) == (200, "final")
    assert grid.now((T - 9999) * S).quality == "stale"
    clock.pass_s(3600)
    start = clock.unix_ns
    assert (grid.now(start).quality, grid.provisional(start, start + S)) == ("stale", True)
    clock.pass_s(60)
    write(path, f"{head}{rfc3339((T - 3600) * S)},300\n{rfc3339(T * S)},200\n{rfc3339((T + 3600) * S)},250\n")
    grid.ask()
    assert grid.now(clock.unix_ns).gco2e_per_kwh == 250
    assert grid.now(start).gco2e_per_kwh == 200  # used
    assert grid.final_price(start, start + S) == price_of(250.0, 1.0)  # and settled
    write(path, head + "oops,1\n")
    grid.ask()
    grid.look()
    (health,) = grid.health()
    assert grid.now(clock.unix_ns).gco2e_per_kwh == 250
    assert not health.up and health.failures == {"series": 1} and "line 2" in health.why


def test_a_pue_series_goes_with_a_number_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "p.csv"
    write(path, f"valid_from,pue\n{rfc3339(T * S)},1.5\n{rfc3339((T + 3600) * S)},1.25\n")
    clock = HandClock()
    grid = open_grid(config({"intensity_g_per_kwh": 100.0, "pue_series": str(path)}), clock, None, True, asks=False)
    assert isinstance(grid, Followed)
    assert grid.prices.over(T * S, (T + 7200) * S) == price_of(100.0, 1.375)
    assert [grid.pue((T + at) * S) for at in (0, 3600, 99999)] == [1.5, 1.25, 1.25]
    assert not grid.provisional(T * S, clock.unix_ns)
    assert grid.final_price(clock.unix_ns, clock.unix_ns + S) == price_of(100.0, 1.5)
    assert grid.now(0).quality == "static"
    (health,) = grid.health()
    assert health.name == "grid-pue" and health.up
    clock.pass_s(3 * 3600)
    grid.ask()
    grid.look()
    (health,) = grid.health()
    assert not health.up and "holds for a time that it doesn't cover" in health.why
    for _ in range(3):
        grid.ask()
    assert caplog.text.count("holds for a time") == 1 and "again" not in caplog.text
    write(path, f"valid_from,pue\n{rfc3339(T * S)},0.5\n")
    grid.ask()
    grid.look()
    assert grid.health()[0].failures == {"series": 1, "stale": 1}
    assert grid.pue(clock.unix_ns) == 1.25


@pytest.mark.parametrize("carbon", [{"series": "none.csv"}, {"intensity_g_per_kwh": 1.0, "pue_series": "none.csv"}])
def test_a_file_that_isnt_there_doesnt_open(carbon: dict[str, object], tmp_path: Path) -> None:
    named = {key: str(tmp_path / value) if isinstance(value, str) else value for key, value in carbon.items()}
    with pytest.raises(ConfigError, match=r"none\.csv: can't be read: No such file"):
        open_grid(config(named), HandClock(), None, True)


@pytest.mark.parametrize(
    ("carbon", "provider", "said"),
    [
        ({"provider": "electricitymaps"}, {"zone": "DE"}, "set ELECTRICITYMAPS_API_KEY, or provider.key_file"),
        (
            {"provider": "watttime", "factor_type": "direct"},
            {"zone": "CAISO_NORTH"},
            "set WATTTIME_USER and WATTTIME_PASSWORD",
        ),
        (
            {"provider": "prometheus"},
            {"url": "https://p.example", "query": "q", "key_file": "/nonexistent/key"},
            "/nonexistent/key: No such file",
        ),
    ],
)
def test_a_missing_key_is_said_at_the_start_and_only_to_who_asks(
    carbon: dict[str, object], provider: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        open_grid(config(carbon, provider), HandClock(), tmp_path, True, environment={})
    assert said in str(caught.value)
    grid = open_grid(config(carbon, provider), HandClock(), tmp_path, True, asks=False, environment={})
    assert grid.now(0).gco2e_per_kwh > 0
    grid.close()


def test_a_key_file_that_others_can_read_is_warned_of(
    server: GridServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o644)
    open_feed(config({"provider": "electricitymaps"}, {"zone": "DE", "key_file": str(key)}), {}, needs_key=True)
    assert f"chmod 600 {key}" in caplog.text and KEY not in caplog.text


def test_a_bug_in_a_provider_is_one_traceback_and_the_prices_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(bench.grid._feed, "fetch", broken)
    bench.ask()
    bench.ask()
    assert bench.failures() == {"bug": 2}
    assert caplog.text.count("Traceback") == 1
    assert bench.seen() == (380.95, "static")


def test_the_thread_asks_by_itself_and_never_keeps_anybody_waiting(server: GridServer, tmp_path: Path) -> None:
    now = time.time()
    hour = int(now // 3600 * 3600)
    server.trouble = hangs
    configured = config(
        {"provider": "electricitymaps", "pue": 1.25}, {"zone": "DE", "url": server.url, "timeout_s": 30}
    )

    class RealClock(HandClock):
        def monotonic_ns(self) -> int:
            return time.monotonic_ns()

        def time_ns(self) -> int:
            return time.time_ns()

    grid = open_grid(configured, RealClock(), tmp_path, True, environment=ENVIRONMENT)
    while not server.asked:  # it hangs on its first question
        time.sleep(0.005)
    assert grid.prices.at(time.time_ns()) == price_of(380.95, 1.25)
    grid.close()
    server.trouble = None
    server.maps = {hour - 3600: (302, False), hour: (295, True)}
    again = open_grid(configured, RealClock(), tmp_path, True, environment=ENVIRONMENT)
    while again.now(time.time_ns()).gco2e_per_kwh == 380.95:
        time.sleep(0.005)
    assert again.now(time.time_ns()).gco2e_per_kwh == 295
    again.close()
    assert (tmp_path / NAME).exists()


def test_readers_and_the_thread_dont_get_in_each_others_way(bench: Bench) -> None:
    """What one reader sees is of one moment: its price is that of its value."""
    bench.server.maps = {T: (295, False)}
    done = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not done.is_set():
            price = bench.grid.prices.at(bench.clock.unix_ns)
            if price not in (price_of(295.0, 1.0), price_of(380.95, 1.0)):
                wrong.append(price)
            bench.grid.health()

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(20):
        bench.server.trouble = says(500) if n % 2 else None
        bench.ask()
    done.set()
    reader.join()
    assert wrong == []
