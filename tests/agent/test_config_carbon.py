"""[carbon] and [provider]: what is refused, in which words, and that nothing that is said is ignored."""

from pathlib import Path
from typing import Any

import pytest

from wattribute.agent.config import load
from wattribute.agent.core.errors import ConfigError
from wattribute.agent.grid import open_grid
from wattribute.agent.opening import SystemClock

LISTS = "wattribute intensity show --zones lists them"


def refusal(text: str, tmp_path: Path) -> list[str]:
    path = tmp_path / "w.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, {}, {}, uid=0)
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        'zone = "FR"',
        'zone = "fra"',
        'zone = "US-CA"\nfactor_type = "direct"',
        'zone = "europe-west9"\nfactor_type = "direct"',
        'zone = "DE"\ntable = "codecarbon"',
        'mix = { coal = 1 }\nfactor_type = "direct"',
        'provider = "uk"\nfactor_type = "direct"',
        'provider = "uk"\nfactor_type = "direct"\nfallback_g_per_kwh = 150\n[provider]\nzone = "13"',
        'provider = "electricitymaps"\n[provider]\nzone = "DE"\nkey_file = "/root/key"',
        'provider = "electricitymaps"\n[provider]\nzone = "DE"\nurl = "http://127.0.0.1:9"',
        'provider = "watttime"\nfactor_type = "direct"\n[provider]\nzone = "CAISO_NORTH"',
        'provider = "prometheus"\n[provider]\nurl = "http://prom:9090/x"\nquery = "q"\npue_query = "p"',
    ],
)
def test_what_is_right_is_taken(text: str, tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text("[carbon]\n" + text)
    assert load(path, {}, {}, uid=0).config


@pytest.mark.parametrize(
    ("zone", "meant"),
    [
        ("France", '"FR"'),
        ("frr", '"FR"'),
        ("UK", '"GB"'),
        ("Germany", '"DE"'),
        ("california", '"US-CA"'),
        ("europe-west99", '"europe-west9"'),
        ("USA-CA", '"US-CA"'),
    ],
)
def test_an_unknown_zone_names_the_nearest(zone: str, meant: str, tmp_path: Path) -> None:
    (said,) = refusal(f'[carbon]\nzone = "{zone}"', tmp_path)
    assert f"did you mean {meant}?" in said and said.endswith(LISTS)


@pytest.mark.parametrize("zone", ["us-east-1", "eu-west-3", "us-gov-west-1"])
def test_a_region_of_aws_isnt_taken_for_one_of_google(zone: str, tmp_path: Path) -> None:
    (said,) = refusal(f'[carbon]\nzone = "{zone}"\nfactor_type = "direct"', tmp_path)
    assert "looks like a region of AWS" in said and "did you mean" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('zone = "US-CA"', 'Set carbon.factor_type = "direct", or carbon.zone = "US"'),
        ('zone = "FR"\nfactor_type = "direct"', "is known by its lifecycle (56.04 g/kWh, 2023, Our World in Data"),
        ('zone = "FR"\nfactor_type = "direct"', "the two are never mixed"),
        ('zone = "US-CA"\ntable = "codecarbon"', "is known by its direct (179.1 g/kWh"),
        ('provider = "uk"', 'gives direct factors alone; set carbon.factor_type = "direct"'),
        ('provider = "watttime"\n[provider]\nzone = "X"', "gives direct factors alone"),
        ('provider = "electricitymaps"', 'needs provider.zone, e.g. "DE"'),
        ('provider = "watttime"\nfactor_type = "direct"', 'needs provider.zone, e.g. "CAISO_NORTH"'),
        ('provider = "uk"\nfactor_type = "direct"\n[provider]\nzone = "London"', 'provider.zone "London" is no place'),
        ('provider = "uk"\nfactor_type = "direct"\n[provider]\nkey_file = "k"', "needs no key"),
        ('provider = "prometheus"\n[provider]\nquery = "q"', "needs provider.url"),
        ('provider = "prometheus"\n[provider]\nurl = "http://p"', "needs provider.query"),
        ('provider = "electricitymaps"\n[provider]\nzone = "DE"\nquery = "q"', "provider.query is for prometheus"),
        ('zone = "FR"\n[provider]\nzone = "DE"', "provider.zone is set, but carbon.provider isn't"),
        ('zone = "FR"\nfallback_g_per_kwh = 5', "carbon.fallback_g_per_kwh has no use without carbon.provider"),
        ('mix = { coal = 1 }\ntable = "codecarbon"', "has no use without carbon.zone"),
        ('provider = "uk"\nfactor_type = "direct"\nfallback_g_per_kwh = 1501', "is above 1500 g/kWh"),
        ('zone = "FR"\nprovider = "uk"\nfactor_type = "direct"', "give exactly one of"),
        ('series = "/nonexistent/s.csv"', "carbon.series: /nonexistent/s.csv: can't be read: No such file"),
        ('pue_series = "/nonexistent/p.csv"', "carbon.pue_series: /nonexistent/p.csv: can't be read"),
    ],
)
def test_what_doesnt_fit_is_refused_with_the_fix(text: str, said: str, tmp_path: Path) -> None:
    assert said in "\n".join(refusal("[carbon]\n" + text, tmp_path))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://x/", "is no address"),
        ("p.example", "is no address"),
        ("https://", "is no address"),
        ("https://x/?a=b", "is no address"),
        ("https://[x", "is no address"),
        ("https://x:99999", "is no address"),
        ("https://ada:s3cret@x/", "has a user or password in it"),
        ("http://x.example", "would show the key to whoever is on the way; use https://"),
    ],
)
def test_an_address_that_cant_be_used_is_refused_without_its_secrets(url: str, said: str, tmp_path: Path) -> None:
    lines = refusal(f'[carbon]\nprovider = "electricitymaps"\n[provider]\nzone = "DE"\nurl = "{url}"', tmp_path)
    assert said in "\n".join(lines)
    assert "s3cret" not in "\n".join(lines)


def test_a_series_is_judged_with_its_line(tmp_path: Path) -> None:
    series = tmp_path / "s.csv"
    series.write_text("valid_from,gco2e_per_kwh\n2026-01-01T00:00:00,5\n")
    (said,) = refusal(f'[carbon]\nseries = "{series}"', tmp_path)
    assert said.startswith(f"carbon.series: {series}, line 2:") and "has no offset" in said


def test_a_series_that_another_user_may_not_read_is_judged_by_who_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = tmp_path / "s.csv"
    series.write_text("nonsense")
    path = tmp_path / "w.toml"
    path.write_text(f'[carbon]\nseries = "{series}"')
    there = Path.open

    def closed(self: Path, *args: Any, **named: Any) -> Any:
        if self == series:
            raise PermissionError(13, "Permission denied")
        return there(self, *args, **named)

    monkeypatch.setattr(Path, "open", closed)
    config = load(path, {}, {}, uid=0).config
    assert config.carbon.series == str(series)
    with pytest.raises(ConfigError, match="can't be read: Permission denied"):
        open_grid(config, SystemClock(), None, True, asks=False)
