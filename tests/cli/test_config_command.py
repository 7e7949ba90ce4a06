"""`config check` and `config show`: exit codes, origins, and a round trip of whatever can be configured."""

import json
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.cli import main
from wattribute.agent.cli.config import to_toml
from wattribute.agent.config import Config, Loaded, load

PRODUCTS = """
[agent]
node_id = 'quo"te'
[carbon]
mix = { coal = 0.8, solar = 0.2 }
[[embodied]]
component = "gpu"
kgco2e = 150
[[product]]
id = "iks"
kind = "platform"
overhead_g_per_min = 50
concurrency = 10
[[product]]
id = "model"
runs_on = ["iks"]
parents = [{ id = "iks", weight = 0.5 }]
"""


def invoke(*words: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner(env={"WATTRIBUTE_CONFIG": None, **(env or {})}).invoke(main, words)


def test_check_says_ok_with_a_summary(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text(PRODUCTS)
    result = invoke("config", "check", str(path))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.output == f"{path}: ok (every 1 s, 127.0.0.1:19917, PUE 1, a mix, 2 products)\n"


def test_check_judges_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text("")
    assert invoke("config", "check", str(path), env={"WATTRIBUTE_AGENT__INTERVALL_S": "1"}).exit_code == 0


def test_check_warns_of_what_will_need_a_flag(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text('[agent]\nlisten = "0.0.0.0:19917"\n')
    result = invoke("config", "check", str(path))
    assert result.exit_code == 0
    assert "--allow-insecure" in result.stderr


def test_check_tells_every_mistake_in_a_line_and_exits_2(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text("[agent]\nintervall_s = 1\nlisten_on = 1\n")
    result = invoke("config", "check", str(path))
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines[0] == f"wattribute: error: {path}: unknown key agent.intervall_s; did you mean interval_s?"
    assert len(lines) == 2


def test_show_says_where_each_value_came_from(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text(PRODUCTS)
    result = invoke(
        "config", "show", "--origin", "--config", str(path), env={"WATTRIBUTE_AGENT__LISTEN": "127.0.0.1:1"}
    )
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert 'listen = "127.0.0.1:1"  # WATTRIBUTE_AGENT__LISTEN' in lines
    assert f'node_id = "quo\\"te"  # file {path}' in lines
    assert "interval_s = 1.0  # default" in lines
    assert f"[[product]]  # file {path}" in lines


def test_show_as_json_has_values_and_origins(tmp_path: Path) -> None:
    shown = json.loads(invoke("config", "show", "--json", env={"WATTRIBUTE_AGENT__INTERVAL_S": "0.5"}).output)
    assert shown["config"]["agent"]["interval_s"] == 0.5
    assert shown["origins"]["agent.interval_s"] == "WATTRIBUTE_AGENT__INTERVAL_S"


@pytest.mark.parametrize("flags", [(), ("--origin",)])
def test_what_show_prints_is_the_same_configuration(flags: Sequence[str], tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text(PRODUCTS)
    again = tmp_path / "again.toml"
    again.write_text(invoke("config", "show", "--config", str(path), *flags).output)
    assert invoke("config", "check", str(again)).exit_code == 0
    assert load(again, {}, {}).config == load(path, {}, {}).config


FINITE = st.floats(min_value=0, allow_nan=False, allow_infinity=False)


@given(st.text(max_size=20), st.dictionaries(st.sampled_from(["coal", "gas"]), FINITE), st.lists(st.integers(0, 9)))
def test_any_string_number_table_and_list_survives_the_round_trip(
    text: str, mix: dict[str, float], uids: list[int]
) -> None:
    raw = {
        "agent": {"state_dir": text or "x", "scheduler_uids": uids},
        "carbon": {"mix": {fuel: math.fmod(part, 1) for fuel, part in mix.items()}, "intensity_g_per_kwh": None},
    }
    config = msgspec.convert(raw, Config)
    printed = "\n".join(to_toml(Loaded(config=config, origins={}), origins=False))
    assert msgspec.convert({**tomllib.loads(printed), "carbon": _carbon(printed)}, Config) == config


def _carbon(printed: str) -> dict[str, object]:
    """The printed table, with the default of 480 out of the way, as the loader has it."""
    return {"intensity_g_per_kwh": None, **tomllib.loads(printed)["carbon"]}


@pytest.mark.parametrize("words", [("check", "/nonexistent.toml"), ("show", "--config", "/nonexistent.toml")])
def test_a_missing_file_is_exit_2(words: Sequence[str]) -> None:
    result = invoke("config", *words)
    assert result.exit_code == 2
    assert "can't be read: No such file" in result.stderr
