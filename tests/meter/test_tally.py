"""The count of one process: virtual time against the plain integral, threads, and what goes wrong in servers."""

import dis
import gc
import itertools
import logging
import math
import os
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattribute.agent.meter import request as requests_of
from wattribute.agent.meter.account_file import AccountFile
from wattribute.agent.meter.report import Report, Row
from wattribute.agent.meter.tally import Tally


class Stop(Exception):
    """What a signal's handler raises."""


class Clock:
    """CLOCK_MONOTONIC, as a test wants it."""

    def __init__(self) -> None:
        self.now_ns = 10**15

    def __call__(self) -> int:
        return self.now_ns


def new(**options: Any) -> tuple[AccountFile, Clock, Tally]:
    file, clock = AccountFile.open(None), Clock()
    return file, clock, Tally(file, clock, **options)


def report_of(file: AccountFile, now_ns: int | None = None) -> Report:
    assert file.is_reporter()
    return file.report(now_ns)


def rows(report: Report) -> dict[str, Row]:
    return {row.tenant: row for row in report.served}


def busy(report: Report) -> dict[str, int]:
    return {report.served[place].tenant: busy_ns for _, place, _, busy_ns in report.shares}


def weighted(report: Report) -> int:
    return sum(row[2] for row in report.shares)


class Integral:
    """The plain way: every request in flight is looked at for every stretch of time, in fractions."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[str, Fraction]] = {}
        self.busy: dict[str, Fraction] = {}
        self.own: dict[int, Fraction] = {}
        self.weighted = self.v = Fraction(0)

    def go(self, dt_ns: int) -> None:
        whole = sum((weight for _, weight in self.open.values()), Fraction(0))
        for key, (tenant, weight) in self.open.items():
            part = dt_ns * weight / whole
            self.busy[tenant] = self.busy.get(tenant, Fraction(0)) + part
            self.own[key] = self.own.get(key, Fraction(0)) + part
        self.weighted += dt_ns * whole
        self.v += dt_ns / whole if whole else 0


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 10**10),
        st.sampled_from(["", "acme", "zeta"]),
        st.sampled_from([1, 1, 1, 2, 0.5, 0.125, 1000]),
        st.integers(0, 5),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_virtual_time_is_the_plain_integral(events: list[tuple[int, str, float, int, bool]]) -> None:
    file, clock, tally = new()
    plain = Integral()
    held: list[tuple[int, Any]] = []
    ended: dict[int, Any] = {}
    for number, (dt_ns, tenant, weight, which, receipt) in enumerate(events):
        clock.now_ns += dt_ns
        plain.go(dt_ns)
        if which < len(held):
            key, request = held.pop(which)
            request.end()
            ended[key] = request
            del plain.open[key]
        else:
            held.append((number, tally.request(tenant=tenant, weight=weight, receipt=receipt)))
            plain.open[number] = (tenant, Fraction(weight))
    clock.now_ns += 1000
    plain.go(1000)
    report = report_of(file, clock.now_ns)
    for tenant in ("", "acme", "zeta"):
        assert busy(report).get(tenant, 0) == pytest.approx(float(plain.busy.get(tenant, 0)), rel=1e-12, abs=400)
    assert weighted(report) == pytest.approx(float(plain.weighted), rel=1e-9, abs=400)
    assert report.in_flight == len(held)
    assert sum(row.requests for row in report.served) == len(ended)
    for key, request in ended.items():
        if getattr(request, "v_end", None) is not None:
            own = request.weight * (request.v_end - request.v_begin)
            assert own == pytest.approx(float(plain.own.get(key, 0)), rel=1e-9, abs=400)
    for _, request in held:
        request.end()


def test_ten_thousand_at_once_share_exactly() -> None:
    file, clock, tally = new()
    held = []
    busy_ns, virtual, at_begin = 0, Fraction(0), []
    for group in range(1, 101):
        held += [tally.begin("even" if each % 2 else "odd") for each in range(100)]
        at_begin.append(virtual)
        clock.now_ns += 1_000_003
        busy_ns += 1_000_003
        virtual += Fraction(1_000_003, group * 100)
    expected = sum((100 * (virtual - begun) for begun in at_begin), Fraction(0))
    assert expected == busy_ns
    report = report_of(file, clock.now_ns)
    assert report.in_flight == 10_000
    assert sum(busy(report).values()) == pytest.approx(busy_ns, abs=10)
    assert busy(report)["even"] == pytest.approx(busy_ns / 2, abs=10)
    assert weighted(report) == pytest.approx(sum(group * 100 * 1_000_003 for group in range(1, 101)), rel=1e-6)
    for request in held:
        request.end()
    file.reported(report)
    report = report_of(file, clock.now_ns + 10**9)
    assert (report.in_flight, report.shares) == (0, ())
    assert sum(row.requests for row in report.served) == 10_000


@contextmanager
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("locked", [False, True])
def test_threads_lose_nothing(locked: bool) -> None:
    file = AccountFile.open(None)
    tally = Tally(file, locked=locked)
    began_ns = time.monotonic_ns()
    barrier = threading.Barrier(4)

    def serve(number: int) -> None:
        barrier.wait()
        for each in range(1500):
            with tally.request(tenant=f"t{each % 3}", weight=1 + (each % 7 == 0)):
                outer = tally.begin()
            outer.end({"tokens": 2})
            if each % 50 == number:
                tally.begin("dropped")

    with switching_often():
        threads = [threading.Thread(target=serve, args=(number,)) for number in range(4)]
        always = tally.begin("always")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        always.end()
    gc.collect()
    report = report_of(file)
    assert report.in_flight == 0
    assert {name: (row.requests, row.aborted) for name, row in rows(report).items()} == {
        "": (6000, 0),
        "t0": (2000, 0),
        "t1": (2000, 0),
        "t2": (2000, 0),
        "dropped": (0, 120),
        "always": (1, 0),
    }
    assert rows(report)[""].units == {"tokens": 12_000}
    file.reported(report)
    assert report_of(file).shares == ()  # nothing is left in flight: W is 0
    whole_ns = sum(row[3] for row in report.shares)
    assert 0 < whole_ns <= time.monotonic_ns() - began_ns  # a lost update would make it more, or negative


def test_the_busy_time_of_threads_is_the_time_in_which_any_was_there() -> None:
    ticks = itertools.count(10**15, 1000)
    file = AccountFile.open(None)
    tally = Tally(file, lambda: next(ticks))
    always = tally.begin()
    first = next(ticks)

    def serve() -> None:
        for _ in range(2000):
            tally.begin("t").end()

    with switching_often():
        threads = [threading.Thread(target=serve) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    always.end()
    report = report_of(file, last := next(ticks))
    assert sum(busy(report).values()) == pytest.approx(last - first, abs=4000)
    assert rows(report)["t"].requests == 8000


def stopped_at(place: int, serve: Callable[[], None]) -> bool:
    """Raises Stop in `serve`, at a place at which CPython lets a signal's handler in; False: it has no such place."""
    left = place
    last: dict[FrameType, str] = {}

    def stop(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if "meter" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            if last.get(frame, "").startswith(("CALL", "RESUME", "JUMP_BACKWARD")):
                left -= 1
                if left == -1:
                    raise Stop
            last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        return stop

    before = sys.gettrace()
    sys.settrace(stop)
    try:
        with suppress(Stop):
            serve()
    finally:
        sys.settrace(before)
        last.clear()  # a frame of an unfinished request would keep it
    return left < 0


def test_a_signal_anywhere_in_the_first_request_leaves_the_next_ones_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    for place in itertools.count():
        file, _, tally = new()
        if not stopped_at(place, lambda tally=tally: tally.begin().end()):  # type: ignore[misc]
            break
        served = rows(report_of(file)).get("")
        counted = 0 if served is None else served.requests
        tally.begin().end()
        tally.request(units={"tokens": 1}).end({"tokens": 1})
        report = report_of(file)
        assert (rows(report)[""].requests, report.in_flight) == (counted + 2, 0), place
    assert place > 50


def test_a_signal_in_the_path_leaves_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # where the handler hits a finalizer
    file = AccountFile.open(None)
    tally = Tally(file)
    armed = False

    def stop(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
    ended = 0
    try:
        for _ in range(200):
            with suppress(Stop):
                armed = True
                while armed:  # until it came, be it into a finalizer, where it is lost
                    tally.begin().end()
                    ended += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    gc.collect()
    report = report_of(file)
    row = rows(report)[""]
    assert ended <= row.requests <= ended + 200
    assert row.requests + row.aborted <= ended + 200
    file.reported(report)
    assert report.in_flight == 0
    assert report_of(file).shares == ()


def test_a_second_end_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    file, clock, tally = new()
    for request in (tally.begin(), tally.request(receipt=True), tally.begin(weight=3)):
        request.end({"tokens": 1})
        request.end({"tokens": 1})
        request.add(tokens=1)
    report = report_of(file, clock.now_ns)
    assert (rows(report)[""].requests, report.in_flight) == (3, 0)
    assert rows(report)[""].units == {"tokens": 3}


def test_an_exception_ends_a_request_as_aborted_and_passes_on() -> None:
    file, clock, tally = new()
    with pytest.raises(KeyError), tally.request(units={"images": 4}):
        raise KeyError
    with pytest.raises(KeyError), tally.request():
        raise KeyError
    with tally.request(units={"images": 3}) as request:
        request.add({"tokens": 1}, steps=2)
    row = rows(report_of(file, clock.now_ns))[""]
    assert (row.requests, row.aborted, dict(row.units)) == (1, 2, {"images": 3, "tokens": 1, "steps": 2})


def test_a_dropped_request_is_aborted_and_weighs_no_more() -> None:
    file, clock, tally = new()
    kept = tally.begin("kept")
    for receipt in (False, True):
        request = tally.request(tenant="dropped", receipt=receipt)
        del request
    clock.now_ns += 1_000_000
    report = report_of(file, clock.now_ns)
    assert (rows(report)["dropped"].aborted, report.in_flight) == (2, 1)
    assert busy(report) == {"kept": pytest.approx(1_000_000, abs=200)}
    kept.end()


@pytest.mark.parametrize("amount", [-1, math.nan, math.inf, 2e12, "5", None, [], 1j, "x" * 1000])
def test_units_that_are_no_amount_are_left_out(amount: Any) -> None:
    file, clock, tally = new()
    tally.begin().end({"tokens": 1, "bad": amount, "steps": 2.5})
    tally.begin().end({"tokens": amount})
    row = rows(report_of(file, clock.now_ns))[""]
    assert (row.requests, row.aborted, dict(row.units)) == (2, 0, {"tokens": 1, "steps": 2.5})
    assert tally.refused == 2


def test_kinds_of_units_take_turns_and_none_takes_anothers_place() -> None:
    file, clock, tally = new()
    both = {"image": 4, "token": 8}
    for units in (Counter(token=1), Counter(image=2), both, defaultdict(int, image=16), {"token": 32}):
        tally.begin().end(units)
        tally.begin("late").end(units)
    tally.begin("late").add(units, token=64)
    report = report_of(file, clock.now_ns)
    assert rows(report)[""].units == {"token": 41, "image": 22}
    assert rows(report)["late"].units == {"token": 41 + 32 + 64, "image": 22}


def test_what_is_no_mapping_costs_nobody_an_answer() -> None:
    file, clock, tally = new()
    for units in (5, "tokens", ["a"], object()):
        for request in (tally.begin(), tally.begin(receipt=True)):
            request.add(units, steps=1)  # type: ignore[arg-type]
            request.end(units)  # type: ignore[arg-type]
    row = rows(report_of(file, clock.now_ns))[""]
    assert (row.requests, dict(row.units)) == (8, {"steps": 8})
    assert tally.refused >= 16


def test_a_unit_of_the_name_of_requests_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    file, clock, tally = new()
    tally.begin().end({" request": 3, "tokens": 1})
    row = rows(report_of(file, clock.now_ns))[""]
    assert (row.requests, dict(row.units), tally.refused) == (1, {"tokens": 1}, 1)
    assert "each request is one by itself" in caplog.text


def test_a_ninth_kind_of_unit_is_left_out() -> None:
    file, clock, tally = new()
    for _ in range(2):
        tally.begin().end({f"kind-{number}": 1 for number in range(9)})
    row = rows(report_of(file, clock.now_ns))[""]
    assert row.units == {f"kind-{number}": 2 for number in range(8)}
    assert tally.refused == 2


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf, 1e-4, 1e7, "2", None, []])
def test_a_weight_that_cannot_be_is_one(weight: Any) -> None:
    file, clock, tally = new()
    odd, even = tally.begin("odd", weight), tally.begin("even")
    clock.now_ns += 1_000_000
    shares = busy(report_of(file, clock.now_ns))
    assert shares["odd"] == pytest.approx(shares["even"], abs=200)
    odd.end()
    even.end()


def test_weights_that_come_and_go_leave_nothing() -> None:
    file, clock, tally = new()
    for _ in range(3):
        held = [tally.begin("", weight) for weight in (0.1, 0.2, 0.3, 1 / 3, 0.001, 1e6)]
        clock.now_ns += 1000
        for request in held:
            request.end()
    report = report_of(file, clock.now_ns)
    file.reported(report)
    assert report_of(file, clock.now_ns + 10**9).shares == ()


def test_tenants_past_the_limit_are_other_and_names_are_made_fit() -> None:
    file, clock, tally = new(max_tenants=3)
    for tenant in ("a", " b ", "c", "d", "e", "", None, 7, "a", "b", "_other", "bad\nname"):
        tally.begin(tenant).end()  # type: ignore[arg-type]
    counts = {name: row.requests for name, row in rows(report_of(file, clock.now_ns)).items()}
    assert counts == {"": 2, "a": 2, "b": 2, "c": 1, "_other": 5}


def test_unhashable_tenants_are_named() -> None:
    file, clock, tally = new()
    tally.begin(["x"]).end()  # type: ignore[arg-type]
    assert rows(report_of(file, clock.now_ns))["['x']"].requests == 1


def test_a_clock_that_steps_back_changes_nothing() -> None:
    file, clock, tally = new()
    request = tally.begin()
    clock.now_ns += 1_000_000
    other = tally.begin("other")
    clock.now_ns -= 500_000
    other.end()
    request.end()
    report = report_of(file, clock.now_ns)
    assert busy(report) == {"": pytest.approx(1_000_000, abs=200)}


def test_receipts_have_where_virtual_time_was() -> None:
    _, clock, tally = new()
    with tally.request(tenant="acme", weight=2, receipt=True) as request:
        (flying,) = tally.in_flight()
        assert flying is request
        assert (flying.tenant, flying.weight) == ("acme", 2)
        request.add(tokens=3)
        clock.now_ns += 1_000_000
        assert 2 * (tally.v_ns() - flying.v_begin) == pytest.approx(1_000_000, abs=200)
    assert tally.in_flight() == []
    (ended,) = tally.ended
    assert ended is request
    assert (ended.tenant, ended.weight, ended.units) == ("acme", 2, {"tokens": 3})
    assert ended.v_end is not None
    assert 2 * (ended.v_end - ended.v_begin) == pytest.approx(1_000_000, abs=200)


def test_ids_are_unique_and_stay() -> None:
    file, _, tally = new()
    requests = [tally.begin(), tally.request(receipt=True), tally.begin()]
    ids = [request.id for request in requests]
    assert len(set(ids)) == 3
    assert all(name.startswith(file.token[:8]) and len(name) <= 48 for name in ids)
    for request in requests:
        assert repr(request) == f"<wattribute request {request.id!r}, in flight>"
        request.end()
        assert repr(request) == f"<wattribute request {request.id!r}, ended>"
    assert [request.id for request in requests] == ids


def test_the_first_request_is_told_once_and_its_errors_are_harmless(caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []

    def first() -> None:
        told.append(1)
        raise ValueError

    _, _, tally = new(on_first=first)
    assert told == []
    with caplog.at_level(logging.CRITICAL, logger="wattribute"):
        tally.begin("a").end()
        tally.begin("b").end()
    assert told == [1]


def test_a_request_that_is_open_at_a_fork_is_the_parents() -> None:
    file, clock, tally = new()
    open_light, open_detailed = tally.begin("acme"), tally.request(tenant="acme", receipt=True)
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            open_light.end({"tokens": 1})
            open_detailed.end()
            tally.begin("child").end()
            del open_light, open_detailed
            os.write(writing, repr(rows(report_of(tally.file, clock.now_ns)).keys()).encode())
        finally:
            os._exit(0)
    os.wait()
    assert os.read(reading, 1000) == b"dict_keys(['child'])"
    os.close(reading)
    os.close(writing)
    clock.now_ns += 1000
    report = report_of(file, clock.now_ns)
    assert (report.in_flight, rows(report)["acme"].requests) == (2, 0)
    open_light.end()
    open_detailed.end()
    assert rows(report_of(file, clock.now_ns))["acme"].requests == 2


def test_a_fork_while_a_request_is_named_leaves_the_child_its_names() -> None:
    _, _, tally = new()
    with requests_of._naming:
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            os._exit(0 if tally.begin().id else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_after_a_close_requests_are_counted_for_nobody() -> None:
    told: list[int] = []
    file, clock, tally = new(on_first=lambda: told.append(1))
    request = tally.begin()
    file.close()
    request.end()
    tally.begin().end()
    assert told == [1]
    assert rows(report_of(file, clock.now_ns))[""].requests == 1
