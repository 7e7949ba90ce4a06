"""The unit's own ExecStart, started as root with its environment, bounding set and system calls: it opens what root
alone may read and goes on as a user without a right, who can be restarted; and a loop that hangs starves the watchdog.
"""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.powercap import NOBODY, PowercapTree, Zone
from tests.e2e.running import parse, total
from tests.e2e.unit_agent import ROOT, UNIT, UnitAgent, for_everybody, open_folder
from tests.tools import require

from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.writer import Ledger

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="missing: root")
NONE = "0" * 16
WHO = {"WATTRIBUTE_AGENT__USER": "nobody"}


@pytest.fixture
def zone() -> Iterator[Zone]:
    """A package at 100 W whose counter only root may read, in a folder that all may enter."""
    with open_folder() as folder, PowercapTree(folder / "sys") as tree:
        package = tree.add_zone("package-0", limits_uw=(200_000_000,))
        package.path.chmod(0o400)
        with tree.running({package: lambda seconds: 100.0}):
            yield package


@pytest.fixture
def agent(zone: Zone) -> Iterator[UnitAgent]:
    require("systemd-analyze")
    sys_tree = next(place for place in zone.directory.parents if place.name == "sys")
    made = UnitAgent(sys_tree.parent, sys_tree, unit=UNIT)
    yield made
    made.close()


def page(agent: UnitAgent) -> str:
    with urllib.request.urlopen(f"{agent.url}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def rapl_is_up(agent: UnitAgent) -> bool:
    return total(parse(page(agent)), "wattribute_source_up", source="rapl") == 1


def joules(agent: UnitAgent, name: str = "wattribute_node_energy_joules_total", **labels: str) -> float:
    return float(total(parse(page(agent)), name, domain="cpu", **labels))


def check_rights(agent: UnitAgent) -> None:
    threads = agent.threads()
    assert len(threads) > 3
    for status in threads:
        assert status["Uid"].split() == status["Gid"].split() == [str(NOBODY)] * 4
        assert status["Groups"] == str(NOBODY)
        assert {status[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {NONE}
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"


@needs_root
def test_root_opens_and_a_user_without_rights_goes_on(agent: UnitAgent, zone: Zone) -> None:
    Ledger.open(agent.state_dir, node_id="before", boot_id="b", clock_unix_ns=lambda: 1).close()  # root's, until now
    assert agent.state_dir.stat().st_uid == 0
    agent.start(environment=WHO)
    agent.wait_for("READY=1")
    assert agent.heard[0] == "READY=1"
    assert agent.process is not None
    check_rights(agent)
    for place in (agent.state_dir, agent.socket.parent, agent.socket, *agent.state_dir.iterdir()):
        assert place.stat().st_uid == NOBODY, place
    assert rapl_is_up(agent)

    # Somebody else's job, by the command line.
    as_daemon = ["setpriv", "--reuid=1", "--regid=1", "--clear-groups", sys.executable, "-m", "wattribute"]
    words = ("run", "--job-id", "theirs", "--", "true")
    environment = {**agent.environment, "WATTRIBUTE_AGENT__SOCKET": str(agent.socket), "HOME": "/"}
    command = [*for_everybody(agent.folder), *as_daemon, *words]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    owner = [s.labels["user"] for s in parse(page(agent)) if s.labels.get("job_id") == "theirs" and "user" in s.labels]
    assert owner == ["daemon"]

    # Who thinks that it reads its settings anew hasn't ended it: systemd would take that for a stop that was asked for.
    agent.process.send_signal(signal.SIGHUP)
    while "SIGHUP" not in agent.log.read_text():
        agent.wait_for("WATCHDOG=1")

    # The driver is loaded anew: only root may open the new counter, and that is said once, with what helps.
    zone.vanish()
    zone.return_()
    zone.path.chmod(0o400)
    agent.wait_for("STATUS=0 jobs run; not read: rapl")
    agent.wait_for("WATCHDOG=1", more=3)
    assert agent.log.read_text().count("restart the agent") == 1
    assert agent.stop() == 0
    while "STOPPING=1" not in agent.heard:
        agent.listen(1.0)
    with read_only(agent.state_dir) as ledger:
        assert ledger.verify() == []

    agent.start(environment=WHO)
    agent.wait_for("READY=1")
    check_rights(agent)
    assert rapl_is_up(agent)
    assert "theirs" in page(agent)
    assert joules(agent) > 0
    assert agent.stop() == 0
    with read_only(agent.state_dir) as ledger:
        assert ledger.verify() == []
    assert "Traceback" not in agent.log.read_text()


@needs_root
def test_a_user_who_can_not_be_had_stops_the_start(agent: UnitAgent) -> None:
    agent.start("--user", "nosuch")
    assert agent.process is not None
    assert agent.process.wait(20) == 2  # which systemd doesn't try again
    assert 'agent.user "nosuch": this machine has no such user' in agent.log.read_text()
    assert not agent.state_dir.exists()


@needs_root
def test_root_without_the_right_to_become_somebody_does_not_stay_root(agent: UnitAgent) -> None:
    command = ["setpriv", "--bounding-set=-setuid,-setgid", sys.executable, "-m", "wattribute", "agent"]
    words = ["--listen", "127.0.0.1:0", "--socket", str(agent.socket), "--state-dir", str(agent.state_dir)]
    done = subprocess.run(
        [*command, *words, "--user", "nobody"],
        env=agent.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "can't become nobody: Operation not permitted. Fix: start it as root with CAP_SETUID" in done.stderr


def test_a_loop_that_hangs_starves_the_watchdog(tmp_path: Path) -> None:
    tree = tmp_path / "cgroup"
    (tree / "here").mkdir(parents=True)
    (tree / "cgroup.controllers").write_text("cpu\n")
    (tree / "cgroup.procs").write_text("")
    (tree / "here/cpu.stat").write_text("usage_usec 5\n")
    agent = UnitAgent(tmp_path, tmp_path / "sys")
    try:
        agent.start("--cgroup", str(tree))
        agent.wait_for("READY=1")
        agent.wait_for("WATCHDOG=1", more=2)
        hanging = tmp_path / "cpu.stat"
        os.mkfifo(hanging)
        (tree / "stuck").mkdir()
        hanging.rename(tree / "stuck/cpu.stat")  # who opens it to read waits for who writes
        assert agent.is_silent(1.0)
        assert agent.process is not None
        assert agent.process.poll() is None
        with (tree / "stuck/cpu.stat").open("w"):
            agent.wait_for("WATCHDOG=1", more=2)
        assert agent.stop() == 0
    finally:
        agent.close()
