"""`wattribute top`: what it shows of receipts, and the command on a real terminal."""

import os
import pty
import select
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.cli.top_frame import HEADER, Row, Screen, Watch, cell_width, detail, fit, frame
from wattribute.agent.control import ControlServer
from wattribute.agent.receipts import blank
from wattribute.agent.requests import Hello, Peer, Request

S = 10**9


def receipt(job_id: str, energy_uj: int | None, *, ended: bool = False, **more: Any) -> dict[str, Any]:
    known = blank(job_id, energy_uj=energy_uj, quality={"measured": 1.0}, started_at="2026-01-01T00:00:00.000Z")
    known["ended_at"] = "2026-01-01T00:01:00.000Z" if ended else None
    return {**known, "duration_s": 61.0, "gco2e": {**known["gco2e"], "asce": 1.0, "jsce": 0.5}, **more}


def test_power_is_the_difference_of_two_bookings() -> None:
    watch = Watch()
    assert [row.power_w for row in watch.look(10 * S, [receipt("a", 5_000_000)])] == [None]
    assert [row.power_w for row in watch.look(10 * S, [receipt("a", 5_000_000)])] == [None]  # between two ticks
    assert [row.power_w for row in watch.look(12 * S, [receipt("a", 9_000_000)])] == [2.0]
    assert [row.power_w for row in watch.look(12 * S, [receipt("a", 9_000_000)])] == [2.0]
    assert [row.power_w for row in watch.look(13 * S, [receipt("a", None)])] == [None]
    assert [row.power_w for row in watch.look(14 * S, [receipt("a", 9_500_000, ended=True)])] == [None]


ROWS = [
    Row(receipt("b", 1_000_000), 3.0),
    Row(receipt("a", 4_000_000), None),
    Row(receipt("c", 9_000_000, ended=True), None),
    Row(receipt("d", None), 1.0),
]


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        ([], "bdac"),
        (["r"], "adbc"),
        (["p"], "adbc"),
        (["e"], "abdc"),
        (["n"], "abcd"),
        (["n", "n"], "dcba"),
        (["f"], "bda"),
        (["x", "escape"], "bdac"),
    ],
)
def test_keys_sort_and_running_jobs_come_first(keys: list[str], order: str) -> None:
    screen = Screen()
    assert all(screen.press(key, ROWS) for key in keys)
    assert "".join(row.receipt["job_id"] for row in screen.shown(ROWS)) == order
    assert not screen.press("q", ROWS)


def test_arrows_choose_and_enter_shows_the_terms() -> None:
    screen = Screen()
    screen.press("down", ROWS)
    lines, marked = frame(screen, ROWS, "title", width=100, height=20)
    assert marked is not None and lines[marked].startswith("d ")
    screen.press("up", ROWS)
    screen.press("end", ROWS)
    lines, marked = frame(screen, ROWS, "title", width=100, height=20)
    assert marked is not None and lines[marked].startswith("c ")
    screen.press("enter", ROWS)
    lines, marked = frame(screen, ROWS, "title", width=100, height=30)
    assert marked is None and "c: default, role use" in lines and lines[-1].startswith("Enter back")


def test_who_has_chosen_nothing_sees_what_comes_first() -> None:
    screen = Screen()
    for most in (3, 17):
        rows = [Row(receipt(f"j{at:02}", 1), 9.0 if at == most else 1.0) for at in range(20)]
        lines, marked = frame(screen, rows, "title", width=100, height=8)
        assert marked == 3 and lines[marked].startswith(f"j{most} " if most > 9 else f"j0{most} ")
    screen.press("enter", rows)
    rows = [Row(receipt(f"j{at:02}", 1), float(at)) for at in range(20)]
    assert "j17: default, role use" in frame(screen, rows, "title", width=100, height=30)[0]
    assert frame(screen, rows[:17], "title", width=100, height=30)[1] == 3  # it is gone: no other job in its place


def test_what_is_modelled_or_not_known_says_so() -> None:
    mixed = receipt("m", 2_000_000, quality={"measured": 0.25, "modelled": 0.75}, energy_j={"cpu": None})
    lines, _ = frame(Screen(), [Row(mixed, 2.5)], "t", width=60, height=9)  # too narrow for the column that says it
    assert "~2.5 W" in lines[3] and "~2 J" in lines[3] and "~ modelled" in lines[1]
    told = detail(Row(mixed, None), 80)
    assert "based on 75% modelled, 25% measured" in told and "  cpu   no sensor" in told
    unknown = detail(Row(receipt("u", None, quality={}), None), 80)
    assert "energy unknown, power —" in unknown and "based on —" in unknown
    assert any(line.startswith("  operation") and line.endswith("unknown") for line in unknown)


def test_jobs_can_be_told_apart_on_eighty_columns_and_notes_read() -> None:
    long = "a-product-with-a-long-name"
    rows = [Row(receipt(f"cluster-{at}", 10**9 + at, product_id=long), 0.0284) for at in (1234567, 1234568)]
    lines, _ = frame(Screen(), rows, "t", width=80, height=9)
    assert [line.split()[0] for line in lines[3:5]] == ["cluster-1234567", "cluster-1234568"]
    assert "0.028 W" in lines[3]
    note = "cpu energy is modelled, not measured: " + "no RAPL zone " * 8 + "END"
    told = detail(Row(receipt("j" * 128, 1, notes=[note], product_id=long), 1.0), 80)
    assert any(line.endswith("END") for line in told) and any(long in line for line in told)
    assert max(map(len, told)) <= 80


@given(
    st.lists(
        st.text(st.characters(categories=["L", "N", "P", "M"]), min_size=1, max_size=40), max_size=30, unique=True
    ),
    st.integers(1, 200),
    st.integers(5, 40),
    st.lists(st.sampled_from(["down", "up", "pagedown", "end", "home", "enter", "n", "r", "f"]), max_size=6),
)
def test_no_line_is_wider_and_no_frame_higher_than_the_terminal(
    names: list[str], width: int, height: int, keys: list[str]
) -> None:
    rows = [Row(receipt(name, 10**7 * len(name), ended=len(name) % 3 == 0), 1.0) for name in names]
    screen = Screen()
    for key in keys:
        screen.press(key, rows)
    lines, marked = frame(screen, rows, "title" * 10, width=width, height=height)
    assert len(lines) <= height
    assert all(cell_width(line) <= width for line in lines)
    assert marked is None or 0 <= marked < len(lines) - 1


@given(st.text(max_size=30), st.integers(0, 20))
def test_a_cell_has_exactly_its_width(text: str, width: int) -> None:
    assert cell_width(fit(text, width)) == width


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """A control socket that tells of two jobs, one of which draws 20 W by what it says."""
    path, done, looks = tmp_path / "agent.sock", threading.Event(), [0]

    def answer(request: Request, peer: Peer) -> dict[str, Any]:
        if isinstance(request, Hello):
            return {"node": "node-1"}
        looks[0] += 1
        jobs = [receipt("train-7", looks[0] * 20_000_000), receipt("idle-1", 1_000_000)]
        return {"at_ns": looks[0] * S, "jobs": jobs}

    with selectors.DefaultSelector() as selector:
        server = ControlServer(selector, path, answer)

        def serve() -> None:
            while not done.is_set():
                for key, mask in selector.select(0.05):
                    key.data(mask)

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        done.set()
        thread.join()
        server.close()


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "wattribute", "top", *options]


def environment(agent: Path, terminal: str = "xterm") -> dict[str, str]:
    return {**os.environ, "WATTRIBUTE_AGENT__SOCKET": str(agent), "TERM": terminal, "LINES": "24", "COLUMNS": "100"}


def test_without_a_terminal_it_prints_plain_lines(agent: Path) -> None:
    run = subprocess.run(
        command("-n", "2", "-i", "0.2"), env=environment(agent), capture_output=True, text=True, timeout=20
    )
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines if line] == 2 * ["wattribute", "2", HEADER[0], "train-7", "idle-1"]
    assert "20.0 W" in lines[3] and "\x1b" not in run.stdout


@pytest.mark.parametrize("terminal", ["xterm", "vt100"])  # which has no colours, and a cursor that stays
def test_on_a_terminal_it_is_driven_by_keys(agent: Path, terminal: str) -> None:
    master, slave = pty.openpty()
    run = subprocess.Popen(
        command("-i", "0.2"), env=environment(agent, terminal), stdin=slave, stdout=slave, stderr=subprocess.PIPE
    )
    os.close(slave)
    try:
        seen = b""

        def until(text: bytes) -> None:
            nonlocal seen
            deadline = time.monotonic() + 15
            while text not in seen and time.monotonic() < deadline:
                if select.select([master], [], [], 0.2)[0]:
                    seen += os.read(master, 65536)
            assert text in seen
            seen = b""

        until(b"20.0 W")
        os.write(master, b"n")
        until(b"name")
        os.write(master, b"\r")
        until(b"overhead_hardware")
        os.write(master, b"q")
        assert run.wait(15) == 0
    finally:
        run.kill()
        _, told = run.communicate()
        os.close(master)
    assert told == b""
