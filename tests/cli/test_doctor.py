"""`doctor`: an answer on any machine, exit 1 only for what the configuration demands."""

import json
import os
import socket
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wattribute.agent.cli import main
from wattribute.agent.cli.doctor import required
from wattribute.agent.cli.findings import look_at_agent, look_at_port, look_at_processes, look_at_state
from wattribute.agent.cli.found_user import look_at_user
from wattribute.agent.config import Collectors, Config, Paths
from wattribute.agent.config.schema import Agent, Provider
from wattribute.agent.core.model import Finding


def doctor(tmp_path: Path, text: str, *words: str) -> Result:
    """On a machine without anything: an empty /sys, a socket and a state directory of its own."""
    file = tmp_path / "w.toml"
    (tmp_path / "sys").mkdir()
    file.write_text(
        f'[agent]\nsocket = "{tmp_path}/a.sock"\nstate_dir = "{tmp_path}/state"\n[paths]\nsys = "{tmp_path}/sys"\n'
        + text
    )
    return CliRunner(env={"COLUMNS": "140"}).invoke(main, ["doctor", "--config", str(file), *words])


def test_a_machine_without_sensors_is_described_and_fine(tmp_path: Path) -> None:
    result = doctor(tmp_path, '[collectors]\nnvml = "off"\n')
    assert result.exit_code == 0, result.output
    assert result.output.startswith("SOURCE")
    assert "To mend it:" in result.output
    assert max(map(len, result.output.partition("To mend it:")[0].splitlines())) <= 140


def test_json_is_one_object_per_source(tmp_path: Path) -> None:
    result = doctor(tmp_path, '[collectors]\nnvml = "off"\n', "--json")
    found = json.loads(result.output)
    always = {"rapl", "nvml", "process", "modelled", "cgroup", "state", "agent", "http"}
    assert always <= {finding["source"] for finding in found} <= always | {"slurm", "kubernetes", "containers"}
    assert all(set(finding) == {field.name for field in fields(Finding)} for finding in found)
    assert all(finding["why"] for finding in found)


def test_where_nothing_is_measured_it_says_what_the_agent_would_model(tmp_path: Path) -> None:
    collectors = Collectors(nvml="off")
    found = list(look_at_processes(Config(paths=Paths(sys=str(tmp_path)), collectors=collectors)))
    assert [(one.source, one.path, one.ok) for one in found[1:]] == [
        ("modelled", "cpu", True),
        ("modelled", "dram", True),
    ]


def test_without_proc_it_says_so(tmp_path: Path) -> None:
    found = list(look_at_processes(Config(paths=Paths(proc=str(tmp_path)))))
    assert [(one.source, one.ok) for one in found] == [("process", False)]
    assert found[0].fix


def test_what_is_required_and_missing_is_exit_1(tmp_path: Path) -> None:
    result = doctor(tmp_path, '[collectors]\nnvml = "off"\nrequire = ["rapl"]\n')
    assert result.exit_code == 1
    assert "rapl is required by the configuration" in result.stderr


def test_a_backend_that_is_named_is_required() -> None:
    assert required(Config(collectors=Collectors(rapl="powercap", require=("nvml",)))) == {"rapl", "nvml"}
    assert required(Config()) == set()


def test_state_in_a_directory_that_can_be_made(tmp_path: Path) -> None:
    found = look_at_state(tmp_path / "not" / "yet")
    assert found.ok
    assert "doesn't exist yet" in found.why


def test_state_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = look_at_state(tmp_path / "file" / "state")
    assert (found.ok, found.fix) == (False, f"mv {tmp_path}/file {tmp_path}/file.old")


def test_state_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    found = look_at_state(tmp_path)
    assert not found.ok
    assert found.fix.startswith("sudo install -d")


@pytest.mark.skipif(os.geteuid() != 0, reason="missing: root")
def test_state_of_the_user_that_root_becomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for root in a container, without its rights
    os.chown(tmp_path, 65534, 65534)
    assert look_at_state(tmp_path, "nobody").ok
    found = look_at_state(tmp_path, "daemon")
    assert (found.ok, found.fix) == (False, f"sudo chown -R daemon: {tmp_path}")


def test_a_socket_that_a_dead_agent_left(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    found = look_at_agent(str(path))
    assert not found.ok
    assert found.fix == "wattribute agent"


def test_no_agent_is_no_fault_of_the_machine(tmp_path: Path) -> None:
    assert "measured in-process" in look_at_agent(str(tmp_path / "a.sock")).why


def test_a_port_in_use_names_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        found = look_at_port(listen, agent_runs=False)
        assert not found.ok
        assert found.fix == "wattribute agent --listen 127.0.0.1:19917"
        assert look_at_port(listen, agent_runs=True).ok
    assert look_at_port(listen, agent_runs=False).ok


@pytest.mark.parametrize(
    ("user", "words"),
    [("nosuch", "this machine has no such user"), ("root", "is root"), ("nobody", "provider.key_file (KEY)")],
)
def test_the_user_that_the_agent_becomes_is_looked_up(user: str, words: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    provider = Provider(key_file=str(key))
    (found,) = look_at_user(Config(agent=Agent(user=user), provider=provider))
    assert words.replace("KEY", str(key)) in found.why
    assert not found.ok
    assert found.fix


def test_an_agent_that_stays_who_it_is_needs_no_line_of_its_own() -> None:
    assert list(look_at_user(Config())) == []
