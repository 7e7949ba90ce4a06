"""`intensity show` and `intensity fetch`: what is in force and why; what the provider says, or exactly why not."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.doubles.grid_server import KEY, GridServer, hangs, says

from wattribute.agent.cli import main
from wattribute.agent.core.intensity import About, Reported
from wattribute.collectors.grid.cache import Cache

S = 10**9
HOUR_S = 3600


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GridServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with GridServer() as running:
        yield running


def intensity(tmp_path: Path, carbon: str, *words: str, key: str | None = KEY) -> Result:
    file = tmp_path / "w.toml"
    file.write_text(f'[agent]\nstate_dir = "{tmp_path}/state"\n{carbon}')
    env = {"COLUMNS": "200", "ELECTRICITYMAPS_API_KEY": key, "WATTRIBUTE_CONFIG": str(file)}
    return CliRunner(env=env).invoke(main, ["intensity", *words])


def maps(server: GridServer) -> str:
    return f'[carbon]\nprovider = "electricitymaps"\n[provider]\nzone = "DE"\nurl = "{server.url}"\ntimeout_s = 0.5\n'


def test_nothing_configured_is_the_worlds_average_and_says_so(tmp_path: Path) -> None:
    shown = json.loads(intensity(tmp_path, "", "show", "--json").output)
    assert (shown["gco2e_per_kwh"], shown["quality"], shown["bounds"]) == (480, "default", [20, 1306])
    assert shown["source"].startswith("Ember") and shown["year"] == 2023 and shown["licence"] == "CC BY 4.0"
    assert len(shown["chain"]) == 1


def test_a_zone_is_shown_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    result = intensity(tmp_path, '[carbon]\nzone = "FR"\npue = 1.2', "show")
    assert result.exit_code == 0
    for line in (
        "intensity  56.039 g CO2e/kWh (between 28.02 and 112.1)",
        "zone       FR",
        "method     average, lifecycle",
        "quality    static",
        "year       2023",
        "licence    CC BY 4.0",
        "PUE        1.2",
        "  1. carbon.zone: 56.039 g/kWh (static)  <- in force",
    ):
        assert line in result.output.splitlines()


@pytest.mark.parametrize(
    ("carbon", "value", "provider"),
    [
        ("intensity_g_per_kwh = 480", 480, "static"),
        ("mix = { coal = 0.8, solar = 0.2 }", 665.6, "mix"),
        ('mix = { coal = 0.8, solar = 0.2 }\nfactor_type = "direct"', 608, "mix"),
    ],
)
def test_a_number_and_a_mix_are_shown(carbon: str, value: float, provider: str, tmp_path: Path) -> None:
    shown = json.loads(intensity(tmp_path, f"[carbon]\n{carbon}", "show", "--json").output)
    assert (shown["gco2e_per_kwh"], shown["provider"], shown["quality"]) == (value, provider, "static")


def test_a_series_is_shown_at_a_moment(tmp_path: Path) -> None:
    series = tmp_path / "s.csv"
    series.write_text("valid_from,gco2e_per_kwh\n2026-01-01T00:00:00Z,100\n2026-01-01T01:00:00Z,200\n")
    carbon = f'[carbon]\nseries = "{series}"'
    seen = [
        json.loads(intensity(tmp_path, carbon, "show", "--json", "--at", at).output)
        for at in ("2026-01-01T00:30:00Z", "2026-01-01T02:30:00+01:00", "2026-02-01T00:00:00Z")
    ]
    assert [(one["gco2e_per_kwh"], one["quality"]) for one in seen] == [(100, "final"), (200, "final"), (200, "stale")]
    assert seen[0]["valid_until"] == "2026-01-01T01:00:00Z"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("words", [("show", "--at", "2026-01-01"), ("show", "--at", "now"), ("fetch", "--from", "x")])
def test_a_time_that_is_none_is_wrong_usage_with_the_fix(words: tuple[str, ...], tmp_path: Path) -> None:
    result = intensity(tmp_path, "", *words)
    assert result.exit_code == 2
    assert "2026-01-31T13:00:00Z" in result.stderr


def test_a_provider_isnt_asked_by_show_and_the_chain_says_why(server: GridServer, tmp_path: Path) -> None:
    result = intensity(tmp_path, maps(server), "show", key=None)
    assert result.exit_code == 0 and server.asked == []
    lines = result.output.splitlines()
    assert "  1. electricitymaps: no value for this moment in what it last said" in lines
    assert "  3. carbon.fallback_g_per_kwh: not set" in lines
    assert "  4. the yearly figure of DE: 380.95 g/kWh (static)  <- in force" in lines
    assert "  5. the world's average: 480 g/kWh (default)" in lines


@pytest.mark.parametrize(
    ("age_s", "quality", "step"),
    [(60, "final", 0), (HOUR_S + 60, "estimated", 1), (2 * HOUR_S, "stale", 1), (8 * HOUR_S, "static", 3)],
)
def test_what_the_agent_kept_is_in_force_by_its_age(
    server: GridServer, tmp_path: Path, age_s: int, quality: str, step: int
) -> None:
    about = About(
        zone="DE",
        provider="electricitymaps",
        method="average, lifecycle",
        source="Electricity Maps API v3, carbon intensity of consumption",
    )
    (tmp_path / "state").mkdir()
    start = time.time_ns() - age_s * S
    Cache(tmp_path / "state", about).write(start, [Reported(start, start + HOUR_S * S, 295.0, "final", start)], [])
    shown = json.loads(intensity(tmp_path, maps(server), "show", "--json").output)
    assert shown["quality"] == quality
    (in_force,) = [n for n, link in enumerate(shown["chain"]) if link["gco2e_per_kwh"] == shown["gco2e_per_kwh"]]
    assert in_force == step
    assert (shown["retrieved_at"] is not None) is (quality != "static")


def test_zones_are_listed_by_pattern(tmp_path: Path) -> None:
    result = intensity(tmp_path, "", "show", "--zones", "germany")
    assert result.output.splitlines()[0].split() == [
        "ZONE",
        "ALSO",
        "NAME",
        "G/KWH",
        "FACTORS",
        "YEAR",
        "SOURCE",
        "(LICENCE)",
    ]
    assert result.output.splitlines()[1].startswith("DE    DEU   Germany  380.9  lifecycle  2023  Our World in Data")
    found = json.loads(intensity(tmp_path, "", "show", "--zones", "US-C*", "--json").output)
    assert {one["key"] for one in found} >= {"US-CA", "US-CO", "US-CT"}
    assert all(one["key"].casefold().startswith("us-c") for one in found)
    everything = json.loads(intensity(tmp_path, "", "show", "--json", "--zones").output)
    assert len(everything) > 300
    theirs = json.loads(
        intensity(tmp_path, '[carbon]\nzone="FR"\ntable="codecarbon"', "show", "--json", "--zones").output
    )
    assert theirs != everything
    none = intensity(tmp_path, "", "show", "--zones", "atlantis")
    assert none.exit_code == 1 and "no zone is called 'atlantis'" in none.stderr


def test_fetch_prints_what_the_provider_says_and_keeps_nothing(server: GridServer, tmp_path: Path) -> None:
    hour = int(time.time() // HOUR_S * HOUR_S)
    server.maps = {hour - HOUR_S: (302, False), hour: (295, True)}
    result = intensity(tmp_path, maps(server), "fetch")
    assert result.exit_code == 0, result.stderr
    assert [line.split()[2:] for line in result.output.splitlines()[1:]] == [
        ["302", "final", "average,", "lifecycle"],
        ["295", "estimated", "average,", "lifecycle"],
    ]
    rows = json.loads(intensity(tmp_path, maps(server), "fetch", "--json").output)
    assert [(row["gco2e_per_kwh"], row["status"], row["grid_zone"]) for row in rows] == [
        (302, "final", "DE"),
        (295, "estimated", "DE"),
    ]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (says(401, b"bad token " + KEY.encode()), "electricitymaps: it answers 401: bad token ***. Fix: check the key"),
        (says(429), "electricitymaps: it answers 429"),
        (says(200, b"<html>"), "electricitymaps: its answer isn't as documented"),
        (hangs, "electricitymaps: no answer within 0.5 s. Fix: look at the network, or raise provider.timeout_s"),
    ],
)
def test_fetch_says_exactly_what_is_wrong_and_exits_1(
    server: GridServer, tmp_path: Path, trouble: object, said: str
) -> None:
    server.trouble = trouble  # type: ignore[assignment]
    result = intensity(tmp_path, maps(server), "fetch")
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr and KEY not in result.stderr and "Traceback" not in result.stderr


def test_fetch_tells_what_it_left_out(server: GridServer, tmp_path: Path) -> None:
    hour = int(time.time() // HOUR_S * HOUR_S)
    server.maps = {hour - HOUR_S: (-3, False), hour: (295, True)}
    server.maps[hour - 2 * HOUR_S] = (301, False)
    result = intensity(tmp_path, maps(server), "fetch")
    assert result.exit_code == 0
    assert "electricitymaps: 1 not used: its value at" in result.stderr


@pytest.mark.parametrize(
    ("carbon", "words", "said"),
    [
        ("", ("fetch",), "carbon.provider isn't set"),
        ('[carbon]\nzone = "FR"', ("fetch",), "carbon.provider isn't set"),
        (
            '[carbon]\nprovider = "electricitymaps"\n[provider]\nzone = "DE"',
            ("fetch",),
            "no usable key in ELECTRICITYMAPS_API_KEY",
        ),
        (
            '[carbon]\nprovider = "uk"\nfactor_type = "direct"',
            ("fetch", "--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"),
            "--from must be before --to",
        ),
    ],
)
def test_what_cant_be_asked_is_exit_2(carbon: str, words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    result = intensity(tmp_path, carbon, *words, key=None)
    assert result.exit_code == 2
    assert said in result.stderr


def test_config_check_sums_up_where_the_grams_come_from(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_text('[carbon]\nzone = "FR"\n')
    result = CliRunner().invoke(main, ["config", "check", str(file)])
    assert result.exit_code == 0 and "zone FR" in result.output
