"""What `config check` and `agent` say of a web file before anything is started."""

from importlib.util import find_spec
from pathlib import Path

import bcrypt
import pytest
from click.testing import CliRunner, Result

from wattribute.agent.cli import main
from wattribute.exporters.web import door

USERS = f"basic_auth_users: {{prometheus: '{bcrypt.hashpw(b'x', bcrypt.gensalt(4)).decode()}'}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "w.toml").write_text(
        f'[agent]\nlisten = "0.0.0.0:1"\nstate_dir = "{tmp_path}/state"\n[web]\nconfig_file = "{tmp_path}/web.yml"\n'
    )
    return tmp_path


def check(folder: Path, text: str) -> Result:
    (folder / "web.yml").write_text(text)
    return CliRunner(env={"WATTRIBUTE_CONFIG": None}).invoke(main, ["config", "check", str(folder / "w.toml")])


def start(folder: Path, *flags: str) -> Result:
    return CliRunner().invoke(main, ["agent", "--config", str(folder / "w.toml"), "--once", *flags])


def test_a_login_in_the_clear_lifts_the_refusal_and_is_warned_of(folder: Path) -> None:
    result = check(folder, USERS)
    assert result.exit_code == 0
    assert "passwords travel in the clear: add tls_server_config" in result.stderr


def test_a_web_file_that_protects_nothing_lifts_no_refusal(folder: Path) -> None:
    assert "name a web file with TLS or users" in check(folder, "http_server_config: {http2: true}").stderr
    result = start(folder)
    assert result.exit_code == 2
    assert "add --allow-insecure" in result.stderr


def test_a_web_file_that_does_not_hold_is_exit_2_whatever_is_allowed(folder: Path) -> None:
    result = check(folder, "basic_auth_user: {}")
    assert result.exit_code == 2
    assert f"{folder}/web.yml: basic_auth_user: unknown key; did you mean basic_auth_users?" in result.stderr
    assert start(folder, "--allow-insecure").exit_code == 2
    (folder / "web.yml").unlink()
    assert "web.yml: can't be read: No such file" in start(folder).stderr


@pytest.mark.parametrize("missing", ["yaml", "bcrypt"])
def test_a_missing_package_is_named_with_its_extra(folder: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = find_spec
    monkeypatch.setattr(door, "find_spec", lambda name: None if name == missing else find(name))
    result = check(folder, USERS)
    assert result.exit_code == 2
    assert "pip install 'wattribute[web]'" in result.stderr
    assert not (folder / "state").exists()
