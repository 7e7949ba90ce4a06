"""One thread per serving process: opens the job, and about once per interval tells what was served and asks what for.

Nothing of it is on the path of a request but that the first waits for the job: what comes before is in nobody's bill.
Whatever happens to the agent, counts stand in the account: what couldn't be told is told with the next report, and a
report whose answer was lost is sent again as it was.
"""

import atexit
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from wattribute.agent.client import AgentRefused, AgentUnreachable
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.meter.account_file import AccountFile
from wattribute.agent.meter.billing import Billing
from wattribute.agent.meter.report import Report, Row
from wattribute.agent.meter.reporting import SHARES
from wattribute.agent.meter.tally import Tally
from wattribute.agent.process import here, left_alone
from wattribute.agent.session import Job

OPEN_S = 0.2  # the first request waits no longer than a job() does
START_S = 2.0  # nobody waits for it, and measuring in-process for weeks because an agent was busy once is no bargain
CALL_S = 0.5
EXIT_S = 0.2
WAIT_MAX_S = 5.0
_INTERVAL_S = 1.0
_JOB_S = 10.0  # so old may be what receipts say of the job: how it is measured, how far off that may be
_REFUSED_S = 30.0
_LINE_BYTES = 60_000  # of the 64 KiB that the socket takes
_SERVED_BYTES = 20_000
_LEAST_ROWS = 8
_LEAVING = 4  # reports of one that leaves: its own, and of those that left meanwhile


class Reporter:
    """Of one meter in one process, from `start` to `stop`."""

    def __init__(self, job: Job, file: AccountFile, tally: Tally, *, all_have: bool) -> None:
        self.pid = os.getpid()
        self.interval_s = _INTERVAL_S
        self.billing = Billing(file, tally, job, all_have=all_have)
        self.in_flight = 0
        """Of all workers, as of the last report that this one made."""
        self._job = job
        self._file = file
        self._account = _Account(file)
        self._wake = threading.Event()
        self._hurried = 0
        self._ending = False
        self._exiting = False
        self._quiet_until_s = float("-inf")
        self._agent: tuple[int, int] | None = None
        self._settled = threading.Condition()
        self._opened = threading.Event()
        self._job_read_s = float("-inf")
        self._thread = threading.Thread(target=self._run, name="wattribute-meter", daemon=True)

    def start(self) -> None:
        """Begins; the job is opened in the thread, which is waited for 200 ms at most."""
        atexit.register(self._at_exit)
        self._thread.start()
        self._opened.wait(OPEN_S)

    def stop(self) -> None:
        """Sends the last report and ends the job: waits 200 ms for that, then it goes on by itself."""
        if self.pid == os.getpid():
            self._ending = True
            self._wake.set()
            self._thread.join(EXIT_S)

    def wait(self, request_id: str) -> None:
        """Until a request's receipt is settled: two intervals and 5 s at the most."""
        until_s = time.monotonic() + min(2 * self.interval_s, WAIT_MAX_S)
        with self._settled:
            self._hurried += 1
            self._wake.set()
            try:
                while not self.billing.settled(request_id):
                    left_s = until_s - time.monotonic()
                    if left_s <= 0 or not self._thread.is_alive():
                        return
                    self._settled.wait(left_s)
            finally:
                self._hurried -= 1

    def _at_exit(self) -> None:
        self._exiting = True
        self.stop()

    def _run(self) -> None:
        self._guarded("opening the job of a meter", self._open)
        while not self._ending and not left_alone():
            self._wake.wait(self.interval_s / 4 if self._hurried else self.interval_s)
            self._wake.clear()
            if not self._ending:
                self._guarded("reporting what was served", self._turn)
        self._guarded("ending a meter", self._end)

    def _guarded(self, doing: str, step: Callable[[], object]) -> None:
        """Nothing raises into the thread's end: what is counted goes on being told."""
        try:
            step()
        except AgentUnreachable as error:
            here().say_once("meter unreachable", "%s; what is served is counted, and told later", error)
        except WattributeError as error:
            self._quiet_until_s = time.monotonic() + _REFUSED_S
            here().say_once(f"meter {error}", "what was served can't be told: %s; it is tried again", error)
        except Exception:  # noqa: BLE001 - a defect of ours must not end the count
            here().say_once(f"defect {doing}", "an error of wattribute's own while %s", doing, exc_info=True)

    def _open(self) -> None:
        self._job.start_s = START_S
        self._job.in_process = not self._file.shared
        try:
            self._job.start()
        finally:
            self._opened.set()
        self.billing.open_unix_ns = time.time_ns()
        # Last in, first out: at exit the last report comes before the end of the job and of what measures it.
        # Its end is told here alone: an agent that doesn't answer would cost the exit its 200 ms twice.
        atexit.unregister(self._at_exit)
        atexit.unregister(self._job.stop)
        atexit.register(self._at_exit)
        self._agent = self._socket()
        self._turn()

    def _turn(self) -> None:
        """Tells what was served, or only asks; then settles."""
        agent = self._socket()
        if agent is not None and agent != self._agent:  # it was restarted, with its state or without
            self._job.rejoin(CALL_S)
            self._account.forgotten()  # of what was told last, its state may not have all
            self._agent = agent
        if self.billing.renewed():
            self._account.forgotten()
        if time.monotonic() < self._quiet_until_s and not self._exiting:
            return
        self.billing.hear()
        told = self._file.is_reporter() and self._report()
        if not told and self.billing.waiting():
            self._ask()
        now_s = time.monotonic()
        if self.billing.any and now_s - self._job_read_s >= _JOB_S and not self._exiting:
            self._job_read_s = now_s
            self.billing.of_job = self._job.so_far.to_dict()
        with self._settled:
            self._settled.notify_all()

    def _report(self) -> bool:
        """Whether there was anything to tell, and it was."""
        batches = self._account.batches()
        self.in_flight = self._account.in_flight
        for batch in batches:
            try:
                answer = self._tell({**batch, **self._seen()})
            except AgentUnreachable:
                raise
            except WattributeError:
                self._account.refused()
                raise
            self._account.told(batch)
            self.billing.take(answer)
        return bool(batches)

    def _ask(self) -> None:
        """Only asks, for windows that another worker reports, or that are settled meanwhile."""
        self.billing.take(self._tell({"account": self._file.token, "until_ns": 0, **self._seen()}))

    def _seen(self) -> dict[str, int]:
        return {"seen_ns": self.billing.seen_ns, "slot": self._file.own_slot}

    def _tell(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            answer = self._job.tell_units(EXIT_S if self._exiting else CALL_S, **fields)
        except AgentUnreachable:
            raise
        except WattributeError as error:
            if isinstance(error, AgentRefused) and error.code == "unavailable":  # not now
                raise AgentUnreachable(str(error)) from error
            if self._exiting or not self._job.rejoin(CALL_S):  # as the job is over there, or unknown
                raise
            self._agent = self._socket()
            answer = self._job.tell_units(CALL_S, **fields)
        self.interval_s = min(max(float(answer.get("interval_s", _INTERVAL_S)), 0.05), 60.0)
        return answer

    def _socket(self) -> tuple[int, int] | None:
        """Which socket the agent listens on: another one after its restart."""
        path = self._job.agent_path
        try:
            status = None if path is None else os.stat(path)  # noqa: PTH116 - as in client.py
        except OSError:
            return None
        return None if status is None else (status.st_ino, status.st_ctime_ns)

    def _end(self) -> None:
        try:
            self._guarded("reporting what was served", self._turn)
            until_s = time.monotonic() + min(3 * self.interval_s, WAIT_MAX_S)
            while self.billing.waiting() and not self._exiting and time.monotonic() < until_s:
                self._wake.wait(self.interval_s / 4)
                self._wake.clear()
                self._guarded("reporting what was served", self._turn)
            self.billing.finish()
        finally:
            self._guarded("telling what others left", self._leave)
            self._job.stop()
            self._file.close()
            if not self._exiting:
                atexit.unregister(self._at_exit)

    def _leave(self) -> None:
        """The last to leave tells: of two that end at once, one has told before the other has counted all."""
        self._file.leave()
        for _ in range(_LEAVING):
            if not self._file.left_over() or not self._file.is_reporter():
                break
            try:
                self._report()
            finally:
                self._file.resign()


class _Account:
    """What of the account the agent knows: batches of the rest, and nothing while nothing happens."""

    def __init__(self, file: AccountFile) -> None:
        self.in_flight = 0
        self._file = file
        self._known: dict[str, Row] | None = None  # by tenant; None: the agent has heard nothing from here
        self._receipts: Any = None
        self._told_ns = self._idle_ns = 0
        self._waiting: tuple[Report, dict[str, Any]] | None = None

    def forgotten(self) -> None:
        """The agent begins anew: all counts are told again, which it takes for what they are."""
        self._known, self._receipts = None, None

    def batches(self) -> list[dict[str, Any]]:
        """What is to be sent now, in order: `told` each."""
        if self._waiting is not None:  # nobody knows whether it was taken in: the same again counts once
            return [self._waiting[1]]
        rows = SHARES
        while True:
            report = self._file.report(rows=rows)
            fields = self._fields(report)
            if rows <= _LEAST_ROWS or len(json.dumps(fields)) <= _LINE_BYTES:
                break
            rows //= 4
        self.in_flight = report.in_flight
        if not (self._known is None or report.shares or report.in_flight or fields["served"] or "receipts" in fields):
            self._idle_ns = report.until_ns
            return []
        self._waiting = report, fields
        if self._idle_ns > self._told_ns and self._known is not None:
            # Until here nothing was in flight: so the window of what began since doesn't begin long before it.
            return [{"account": fields["account"], "until_ns": self._idle_ns, "shares": []}, fields]
        return [fields]

    def told(self, batch: Mapping[str, Any]) -> None:
        """It was taken in."""
        self._told_ns = batch["until_ns"]
        if self._waiting is None or batch is not self._waiting[1]:
            return
        report, fields = self._waiting
        self._waiting = None
        self._file.reported(report)
        self._known = self._known or {}
        sent = {one["tenant"] for one in fields["served"]}
        self._known.update((row.tenant, row) for row in report.served if row.tenant in sent)
        self._receipts = fields.get("receipts", self._receipts)

    def refused(self) -> None:
        """It was not: the next report has it anew."""
        self._waiting = None

    def _fields(self, report: Report) -> dict[str, Any]:
        """What is told of a report. Counts are cumulative: only those that changed, and of these as many as there is
        room for, but all that a share is of.
        """
        known = self._known or {}
        places = {place: 0 for _, place, _, _ in report.shares}
        changed = [at for at, row in enumerate(report.served) if at not in places and known.get(row.tenant) != row]
        served: list[dict[str, Any]] = []
        room = _SERVED_BYTES
        for at in (*places, *changed):
            row = report.served[at]
            one = {"tenant": row.tenant, "requests": row.requests, "aborted": row.aborted, "units": dict(row.units)}
            room -= len(json.dumps(one))
            if room < 0 and at not in places:
                break
            places[at] = len(served)
            served.append(one)
        fields: dict[str, Any] = {
            "account": self._file.token,
            "until_ns": report.until_ns,
            "served": served,
            "shares": [(slot, places[at], *part) for slot, at, *part in report.shares],
            "workers": report.workers,
            "in_flight": report.in_flight,
        }
        receipts = self._file.receipts()
        told = {"counts": receipts.counts, "sum_uj": receipts.sum_uj, "latest": receipts.latest}
        if told != self._receipts and any(receipts.counts):
            fields["receipts"] = told
        return fields


__all__ = ["WAIT_MAX_S", "Reporter"]
