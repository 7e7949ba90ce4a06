"""The image's and the compose file's promises, as far as they can be seen without an engine."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.doubles.agent_socket import AgentOnSocket
from tests.doubles.fake_node import FakeNode
from tests.tools import require

from wattribute import __version__
from wattribute.agent.requests import Peer

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy/docker"
HEALTHY = DOCKER / "healthy.py"


def compose(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text())
    return found


def test_hadolint_has_nothing_to_say() -> None:
    beside = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    done = subprocess.run([beside or require("hadolint"), DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_pinned_and_builds_from_what_the_context_has() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(set(bases)) == 1
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+\.\d+-slim-\w+", bases[0])
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for copied in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in copied.split()[:-1]:
            assert (ROOT / source).exists()
            assert any(source == one or source.startswith(f"{one}/") for one in sent), source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'image.licenses="{project["license"]}"' in text
    for licence in project["license-files"]:  # a missing one is left out of the wheel without a word
        assert any(licence == one or licence.startswith(f"{one}/") for one in sent), licence
    for linked in (path for folder in ("agent", "collectors", "exporters") for path in (ROOT / folder).rglob("*")):
        if linked.is_symlink():
            target = linked.resolve().relative_to(ROOT)
            assert any(target.is_relative_to(one) for one in sent), f"{linked} leads out of the build context"


def test_the_agent_of_the_compose_file_has_no_more_rights_than_it_needs() -> None:
    agent = compose("compose.yaml")["services"]["agent"]
    assert (agent["pid"], agent["cgroup"], agent["read_only"]) == ("host", "host", True)
    assert (agent["cap_drop"], agent["cap_add"]) == (["ALL"], ["CHOWN", "SETGID", "SETUID"])
    assert agent["security_opt"] == ["no-new-privileges:true"]
    assert agent["image"] == f"wattribute:{__version__}"
    assert agent["restart"] == "unless-stopped"  # `on-failure` doesn't bring it back after a boot
    written = {mount["target"] for mount in agent["volumes"] if not mount.get("read_only")}
    assert written == {"/var/lib/wattribute", "/run/wattribute"}
    (socket,) = [mount for mount in agent["volumes"] if mount["source"] == "/run/wattribute"]
    assert socket["bind"] == {"create_host_path": True}  # not every version's default, and /run is empty after a boot


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_nothing_is_privileged_and_all_is_seen_from_this_machine_alone(name: str) -> None:
    found = compose(name)
    for service in found["services"].values():
        assert not service.keys() & {"privileged", "devices", "network_mode"}
        assert service.get("image", "x:1").rpartition(":")[2] not in ("", "latest")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        for mount in service.get("volumes", ()):
            if mount["type"] == "volume":
                assert mount["source"] in found["volumes"]
            elif mount["source"].startswith("."):
                assert (DOCKER / mount["source"]).exists()
                assert mount["read_only"]


def test_prometheus_takes_its_configuration() -> None:
    command = [require("promtool"), "check", "config", "--syntax-only", str(DOCKER / "prometheus.yml")]
    assert subprocess.run(command, capture_output=True).returncode == 0
    scraped = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    assert scraped == [{"targets": ["agent:19917"]}]


class FullDisk(FakeNode):
    def health(self, peer: Peer | None = None) -> dict[str, Any]:
        return {"sources": [{"source": "ledger", "up": False, "why": "no space left on the disk"}]}


def healthy(path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(HEALTHY), *flags]
    return subprocess.run(command, env={"WATTRIBUTE_AGENT__SOCKET": str(path)}, capture_output=True, text=True)


def test_an_agent_that_answers_is_healthy_and_none_is_not(tmp_path: Path) -> None:
    with AgentOnSocket(tmp_path / "a.sock") as agent:
        assert healthy(agent.path).returncode == 0
    none = healthy(tmp_path / "a.sock", "--alive")
    assert none.returncode == 1
    assert "doesn't answer" in none.stderr


def test_one_that_keeps_no_record_is_unhealthy_and_alive(tmp_path: Path) -> None:
    with AgentOnSocket(tmp_path / "a.sock", FullDisk()) as agent:
        full = healthy(agent.path)
        assert full.returncode == 1
        assert full.stderr == "ledger: no space left on the disk\n"
        assert healthy(agent.path, "--alive").returncode == 0
