"""`wattribute run` with real processes: the command can't tell, whatever becomes of the agent."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.agent_socket import AgentOnSocket
from tests.doubles.powercap import NOBODY

from wattribute.agent.reaper import CannotRun, find

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix")
RUN = [sys.executable, "-m", "wattribute", "run"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Nobody's settings; state and sockets go to a directory of the test."""
    ours = ("WATTRIBUTE_", "SLURM_", "TORCHELASTIC_", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "HOME": str(tmp_path), "WATTRIBUTE_AGENT__SOCKET": str(tmp_path / "agent.sock")}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentOnSocket]:
    with AgentOnSocket(tmp_path / "agent.sock") as agent:
        yield agent


def run(
    environment: dict[str, str], *words: str, input: str | None = None, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*RUN, *words], env=environment, capture_output=True, text=True, timeout=60, input=input, cwd=cwd
    )


def started(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"


def test_a_registered_job_ends_with_its_receipt_on_stderr_and_in_a_file(
    agent: AgentOnSocket, environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "receipt.json"
    done = run(
        environment,
        *("--job-id", "a", "--product", "p", "--uses", "q", "--uses", "r", "--role", "platform", "--phase", "data"),
        *("--weight", "3", "--nodes", "2", "--label", "k=v=w", "--receipt", str(file)),
        *("--", "sh", "-c", 'read line; echo "$line $WATTRIBUTE_JOB_ID"; echo err >&2; exit 7'),
        input="hello\n",
    )
    assert (done.returncode, done.stdout) == (7, "hello a\n")
    assert done.stderr.startswith("err\nwattribute receipt: a\n")
    assert json.loads(file.read_text())["job_id"] == "a"
    ((request, _),) = agent.node.starts
    assert (request.product_id, request.uses, request.role, request.phase) == ("p", ("q", "r"), "platform", "data")
    assert (request.weight, request.nodes, request.labels, request.origin) == (3, 2, {"k": "v=w"}, "run")
    ((ended, _),) = agent.node.ends
    assert ended.reaped_cpu_ns


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["no-such-command-anywhere"], 127),
        (["./nowhere/at/all"], 127),
        (["/"], 126),
        (["./plain"], 126),
        (["./broken"], 126),
        (["./script"], 5),
    ],
)
def test_the_exit_code_is_the_commands(
    agent: AgentOnSocket, environment: dict[str, str], tmp_path: Path, words: list[str], code: int
) -> None:
    (tmp_path / "plain").write_text("exit 5")
    (tmp_path / "script").write_text("exit 5")  # without #!
    (tmp_path / "broken").write_bytes(b"\0\0")
    for name in ("script", "broken"):
        (tmp_path / name).chmod(0o755)
    done = run(environment, "--", *words, cwd=tmp_path)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="missing: root")
def test_a_folder_of_the_path_that_one_may_not_enter_is_passed_over(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    os.seteuid(NOBODY)
    try:
        assert find("sh", {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}).endswith("bin/sh")
        with pytest.raises(CannotRun, match="not executable"):
            find("sh", {"PATH": f"{tmp_path}/bin"})
    finally:
        os.seteuid(0)


def test_with_an_agent_nothing_heavy_is_loaded(agent: AgentOnSocket, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "wattribute", "run", "--", "true"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "click" in loaded
    assert loaded.isdisjoint({"msgspec", "numpy", "psutil", "pynvml", "prometheus_client", "subprocess"})


def test_options_of_the_command_are_its_own(agent: AgentOnSocket, environment: dict[str, str]) -> None:
    done = run(environment, "echo", "--product", "x", "--", "-y")
    assert done.stdout == "--product x -- -y\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--job-id", "_a"], "reserved"),
        (["--job-id", "x" * 10_000], "10000 characters"),
        (["--job-id", b"\xff\xfe"], "isn't UTF-8"),
        (["--job-id", ""], "empty"),
        (["--product", "a\tb"], "printed"),
        (["--uses", "_x"], "reserved"),
        (["--role", "king"], "king"),
        (["--weight", "0"], "0"),
        (["--label", "novalue"], "KEY=VALUE"),
        (["--label", "k=" + "v" * 300], "256"),
        (["--receipt", "/nonexistent/r.json"], "/nonexistent"),
        (["--receipt", "/"], "directory"),
        (["--receipt", "-"], "stdout is CMD's own"),
        (["--recipt", "x"], "No such"),
    ],
)
def test_what_is_asked_wrong_is_told_before_anything_runs(
    environment: dict[str, str], tmp_path: Path, words: list[str | bytes], message: str
) -> None:
    done = subprocess.run(
        [*RUN, *words, "--", "touch", tmp_path / "ran"], env=environment, capture_output=True, timeout=60
    )
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert not (tmp_path / "ran").exists()


def test_a_bad_id_in_the_environment_is_refused(environment: dict[str, str]) -> None:
    done = run({**environment, "WATTRIBUTE_JOB_ID": "_overflow"}, "--", "true")
    assert done.returncode == 2
    assert "of the environment" in done.stderr
    assert run(environment).returncode == 2


REAL_TIME = 40 if sys.platform == "linux" else signal.SIGUSR2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, REAL_TIME])
def test_signals_reach_the_command_once(agent: AgentOnSocket, environment: dict[str, str], number: int) -> None:
    script = f"trap 'echo got; exit 9' {number}; echo up; while :; do sleep 0.02; done"
    with subprocess.Popen(
        [*RUN, "--", "sh", "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # ignored in a shell's background job, else
    ) as process:
        started(process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (9, "got\n")
    assert "wattribute receipt:" in err


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
@pytest.mark.parametrize("before", ["", "trap '' HUP INT;"])
def test_what_was_ignored_or_blocked_is_the_same_for_the_command(
    agent: AgentOnSocket, environment: dict[str, str], before: str
) -> None:
    def signals(words: str) -> dict[str, int]:
        shown = f"{before} {words} grep -E 'SigBlk|SigIgn' /proc/self/status"
        done = subprocess.run(["sh", "-c", shown], env=environment, capture_output=True, text=True, timeout=60)
        pairs = (line.split() for line in done.stdout.splitlines())
        # glibc's posix_spawn leaves its own two, 32 and 33, ignored; no program may use them.
        return {name: int(mask, 16) & ~(0b11 << 31) for name, mask in pairs}

    assert signals(f"{' '.join(RUN)} --") == signals("")


def test_ctrl_c_at_a_terminal_reaches_the_command_once(agent: AgentOnSocket, environment: dict[str, str]) -> None:
    script = "import signal,time\nhits=[]\nsignal.signal(2,lambda *_:hits.append(1))\nprint('up',flush=True)\n"
    script += "while not hits: time.sleep(0.01)\ntime.sleep(0.2)\nprint('hits',len(hits),flush=True)"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*RUN, "--", sys.executable, "-c", script], environment)
    seen = b""
    try:
        while b"up" not in seen:
            seen += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        while part := os.read(terminal, 4096):
            seen += part
    except OSError:  # Linux: EIO at the end of a terminal
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"hits 1" in seen


def test_an_agent_that_is_stuck_or_dies_changes_nothing(
    agent: AgentOnSocket, environment: dict[str, str], tmp_path: Path
) -> None:
    with subprocess.Popen(
        [*RUN, "--job-id", "a", "--", "sh", "-c", "echo up; read line; exit 4"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        started(process)
        agent.stop()
        _, err = process.communicate("go on\n", timeout=60)
    assert process.returncode == 4
    assert "the agent was lost while the job ran" in err


def test_a_receipt_that_cant_be_written_at_the_end_is_said(
    agent: AgentOnSocket, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "away"
    folder.mkdir()
    done = run(environment, "--receipt", str(folder / "r.json"), "--", "rmdir", str(folder))
    assert done.returncode == 0
    assert "can't write the receipt" in done.stderr


def test_a_receipt_may_go_to_a_device_a_pipe_or_through_a_link(
    agent: AgentOnSocket, environment: dict[str, str], tmp_path: Path
) -> None:
    assert json.loads(run(environment, "--receipt", "/dev/stdout", "--", "true").stdout)["job_id"]
    assert run(environment, "--receipt", "/dev/null", "--", "true").returncode == 0
    assert not Path("/dev/null").is_file()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").write_text("old")
    run(environment, "--receipt", str(tmp_path / "link"), "--", "true")
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "target").read_text())["job_id"]


def test_a_closed_stderr_costs_no_exit_code(agent: AgentOnSocket, environment: dict[str, str]) -> None:
    words = " ".join(RUN)
    done = subprocess.run(["sh", "-c", f"{words} -- sh -c 'exit 6' 2>&-"], env=environment, timeout=60)
    assert done.returncode == 6


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
def test_daemons_that_fork_twice_are_waited_for_and_billed(
    agent: AgentOnSocket, environment: dict[str, str], tmp_path: Path
) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    (tmp_path / "burn.py").write_text(burn)
    # The middle shell ends at once; the command waits for the orphan by its file only.
    script = f"(({sys.executable} {tmp_path}/burn.py; touch {tmp_path}/done) &); "
    script += f"while [ ! -e {tmp_path}/done ]; do sleep 0.02; done; sleep 0.1"
    assert run(environment, "--", "sh", "-c", script).returncode == 0
    ((ended, _),) = agent.node.ends
    assert ended.reaped_cpu_ns is not None
    assert ended.reaped_cpu_ns >= 300_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
def test_it_returns_when_the_command_ends_and_names_what_runs_on(
    agent: AgentOnSocket, environment: dict[str, str], tmp_path: Path
) -> None:
    named = "while ! grep -q sleep /proc/$!/comm; do :; done"  # a fork has its parent's name at first
    script = f"(exec sleep 300 >/dev/null 2>&1 & echo $! > {tmp_path}/pid; {named})"
    done = run(environment, "--", "sh", "-c", script)
    left = int((tmp_path / "pid").read_text())
    try:
        assert done.returncode == 0
        assert f"sleep (pid {left})" in done.stderr
        os.kill(left, 0)
    finally:
        os.kill(left, signal.SIGKILL)


def test_a_run_inside_a_run_is_the_same_job_or_its_child(agent: AgentOnSocket, environment: dict[str, str]) -> None:
    run(environment, "--job-id", "a", "--", *RUN, "--", "true")
    run(environment, "--job-id", "b", "--", *RUN, "--job-id", "c", "--", "true")
    started = [(request.job_id, request.parent_job_id) for request, _ in agent.node.starts]
    assert started == [("a", None), ("a", None), ("b", None), ("c", "b")]


def test_without_an_agent_it_measures_and_jobs_inside_join(environment: dict[str, str], tmp_path: Path) -> None:
    script = "import wattribute,time\n"
    script += "with wattribute.job() as mine, wattribute.job('inner') as inner:\n"
    script += "    began = time.process_time()\n    while time.process_time() - began < 0.2: pass\n"
    script += "print(mine.id, inner.receipt.basis, inner.receipt.to_dict()['parent_job_id'])\n"
    file = tmp_path / "r.json"
    done = run(
        {name: value for name, value in environment.items() if name != "WATTRIBUTE_AGENT__SOCKET"},
        *("--job-id", "outer", "--receipt", str(file), "--", sys.executable, "-W", "error", "-c", script),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "outer in-process outer\n"
    assert "no agent" not in done.stderr
    receipt = json.loads(file.read_text())
    assert receipt["basis"] == "in-process"
    assert receipt["energy_uj"] > 0
    assert not [name for name in os.listdir(tmp_path) if name.startswith("wattribute-")]


def test_a_stuck_agent_is_left_alone(agent: AgentOnSocket, environment: dict[str, str]) -> None:
    agent.frozen.set()
    done = run(environment, "--", "sh", "-c", "exit 3")
    assert done.returncode == 3
    assert "did not answer within 100 ms" in done.stderr
