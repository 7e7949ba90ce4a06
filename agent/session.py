"""Job: a stretch of a program's work. Asks the agent; without one, measures inside this process.

Whatever happens to the agent, the sensors or the disk, the user's code goes on: no exception of ours reaches it, a
missing agent costs at most 50 ms and a stuck one 200 ms, once, and the receipt says what it is based on.
"""

import atexit
import contextvars
import itertools
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from wattribute.agent import identity
from wattribute.agent.client import AgentRefused, AgentUnreachable, Client, configured_path
from wattribute.agent.core.errors import Refused, WattributeError
from wattribute.agent.process import Used, here, reaped_cpu_ns, used_here
from wattribute.agent.receipts import Receipt, blank

_current: contextvars.ContextVar["Job | None"] = contextvars.ContextVar("wattribute_job", default=None)
_tokens = itertools.count(1)
_STUCK_S = 30.0
START_S = 0.1  # then it is measured here, and opening that takes as long again
_ALONE = "jobs of this process are measured in-process"
_LATER = "it is tried again"
_WAIT_MAX_S = 5.0
_NOTE_CHARS = 256


@contextmanager
def _harmless(doing: str) -> Iterator[None]:
    """The one place where everything is caught: a defect of ours must not end a training run of weeks."""
    try:
        yield
    except Exception:  # noqa: BLE001 - see above; it is told with its traceback
        here().say_once(f"defect {doing}", "an error of wattribute's own while %s", doing, exc_info=True)


class Job:
    """A job of this process: a context manager, or `start()` and `stop()`.

    While it runs, a second start does nothing; nor does a stop while it doesn't run. Started again after its end, it
    goes on with the same totals. Copies that a fork leaves in a child are inert: the job is the parent's.
    """

    def __init__(
        self, job_id: str, fields: Mapping[str, Any], environment: Mapping[str, str], *, id_inside: str = ""
    ) -> None:
        """`id_inside`: what it is called where the job of `job_id`, which it runs inside of, is of another product."""
        self.id = job_id
        self._id_inside = id_inside
        self._fields = dict(fields)
        self._environment = environment
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._running = False
        self._outer: Job | None = None
        self._client: Client | None = None
        self.measured_here = False
        self._member = ""
        self._parent: str | None = None
        self._start_fields: Mapping[str, Any] = {}
        self._wait_s = 2.0
        self.start_s = START_S
        """How long its start waits for the agent's answer."""
        self.in_process = True
        """Whether this process measures it where no agent does; else `rejoin` asks again."""
        self._notes: list[str] = []
        self._began: Used | None = None
        self._ended: Used | None = None
        self._settled: Receipt | None = None

    def start(self) -> Self:
        """Begins. Returns itself."""
        if os.getpid() != self._pid:  # its lock may have been held at the fork
            return self
        with self._lock, _harmless("starting a job"):
            if not self._running:
                self._running, self._settled, self._ended = True, None, None
                self._outer = running_job()
                _current.set(self)
                self._begin()
                # After the engine's own, so before it at exit: a script that forgets to stop still has its end told.
                atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Ends; the receipt is there afterwards, in `receipt`."""
        if os.getpid() != self._pid:
            return
        with self._lock, _harmless("ending a job"):
            if self._running:
                self._running = False
                atexit.unregister(self.stop)
                if _current.get() is self:
                    _current.set(self._outer)
                self._end()

    @property
    def running(self) -> bool:
        """Whether it has been started and not stopped, in this process."""
        return self._running and os.getpid() == self._pid

    @property
    def so_far(self) -> Receipt:
        """What has been used until now."""
        return self._read(wait=False)

    @property
    def receipt(self) -> Receipt:
        """The receipt: after the end, with the closing read (two intervals of waiting at most); before, `so_far`.

        Terms that are settled later come by reading it again. Raises WattributeError where it was never started.
        """
        if self._began is None:
            raise WattributeError(f"job {self.id!r} has no receipt: it was never started")
        return self._read(wait=not self._running)

    def note(self, text: str) -> None:
        """Adds a line to the notes of the receipt, before the job's end."""
        self._notes.append(text[:_NOTE_CHARS])

    @property
    def product_id(self) -> str:
        """What it is a unit of work of."""
        return str(self._fields.get("product_id", "default"))

    @property
    def agent_path(self) -> str | None:
        """The socket of the agent that measures it; None where this process does, or nobody."""
        return None if self._client is None else self._client.path

    def tell_units(self, timeout_s: float, **fields: Any) -> Mapping[str, Any]:
        """What it has served (agent/requests.py: Units), to whoever measures it; returns the answer.

        Raises AgentUnreachable; another WattributeError where it is refused, or nobody measures the job.
        """
        if self._client is not None:
            return self._client.call("units", timeout_s, job_id=self.id, **fields)
        if not self.measured_here:
            raise WattributeError(f"nobody measures job {self.id!r}")
        import msgspec

        from wattribute.agent.requests import Units

        units = msgspec.convert({"op": "units", "id": 0, "job_id": self.id, **fields}, Units)
        return here().engine(self._environment).ask(units)

    def rejoin(self, timeout_s: float) -> bool:
        """Registers this process again with an agent that was restarted, or that didn't take it on; False where that
        still knows it, or still doesn't.

        Raises AgentUnreachable.
        """
        if self._client is None:
            if not self._start_fields:  # an error kept it from beginning
                self._begin()
            elif not self.measured_here:
                self._client = self._ask_agent(self._start_fields)
            return self._client is not None
        try:
            self._client.call("job.start", timeout_s, **{**self._start_fields, **_reaped()})
        except AgentRefused:  # the member is open; or it isn't to be, as `tell_units` will hear
            return False
        return True

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<wattribute job {self.id!r}, {'running' if self.running else 'not running'}>"

    def _begin(self) -> None:
        self._began = used_here()
        self._member = f"{self._pid}-{next(_tokens)}-{os.urandom(4).hex()}"
        fields = dict(self._fields)
        around = self._environment.get("WATTRIBUTE_JOB_ID", "")
        parent = self._outer.id if self._outer else identity.fit(around) if around else self.id
        self._parent = fields["parent_job_id"] = None if parent == self.id else parent
        fields.update(job_id=self.id, member=self._member, **_reaped())
        self._start_fields = fields
        self._client, self.measured_here = self._ask_agent(fields), False
        if self._client is None and self.in_process:
            self._measure_here(self._start_fields)

    def _gone_inside(self, refusal: WattributeError) -> Mapping[str, Any] | None:
        """How to register as a job of its own inside the surrounding one, which refused it; None: there is no way.

        Were it measured under the same id by this process, the surrounding job would count it a second time.
        """
        if not self._id_inside or self.id == self._id_inside:
            return None
        here().say_once(f"inside {refusal}", "%s: this is job %r, inside of it", refusal, self._id_inside)
        self._parent, self.id = self.id, self._id_inside
        self._start_fields = {**self._start_fields, "job_id": self.id, "parent_job_id": self._parent}
        return self._start_fields

    def _ask_agent(self, fields: Mapping[str, Any]) -> Client | None:
        """The agent that has taken the job on, or None."""
        instead = _ALONE if self.in_process else _LATER
        client = None if here().stuck_until_s > time.monotonic() else Client.find(self._environment)
        if client is None:
            named = configured_path(self._environment)
            if named:
                here().say_once("missing", "no agent answers at %s; %s", named, instead)
                self.note(f"no agent answers at {named}")
            else:
                here().say_once("no agent", "no agent runs on this machine; %s", instead)
            return None
        try:
            answer = client.call("job.start", self.start_s, **fields)
        except AgentUnreachable as error:
            here().stuck_until_s = time.monotonic() + _STUCK_S
            here().say_once("missing", "%s; %s", error, instead)
            self.note(f"{error}: measured in-process" if self.in_process else f"{error}")
            return None
        except AgentRefused as error:
            inside = self._gone_inside(error) if error.code == "refused" else None
            if inside is not None:
                return self._ask_agent(inside)
            measured = "it is measured in-process" if self.in_process else instead
            here().say_once(f"refused {error}", "the agent refused job %r: %s; %s", self.id, error, measured)
            self.note(f"the agent refused the job: {error}")
            return None
        self._wait_s = min(2.0 * float(answer.get("interval_s", 1.0)), _WAIT_MAX_S)
        return client

    def _measure_here(self, fields: Mapping[str, Any]) -> None:
        from wattribute.agent.requests import JobStart

        try:
            here().engine(self._environment).ask(JobStart(id=0, **{**fields, "uses": tuple(fields.get("uses", ()))}))
            self.measured_here = True
        except WattributeError as error:
            inside = self._gone_inside(error) if isinstance(error, Refused) else None
            if inside is not None:
                self._measure_here(inside)
                return
            here().say_once(f"unmeasured {error}", "job %r can't be measured: %s", self.id, error)
            self.note(f"not measured: {error}")

    def _end(self) -> None:
        self._ended = used_here()
        if self._client is not None:
            try:
                self._client.call("job.end", job_id=self.id, member=self._member, notes=self._notes, **_reaped())
            except (AgentUnreachable, AgentRefused) as error:
                here().say_once(
                    "lost", "%s, while job %r ended; its receipt has what this process knows", error, self.id
                )
                self.note(f"the agent was lost while the job ran ({error})")
                self._client = None
        elif self.measured_here:
            from wattribute.agent.requests import JobEnd

            end = JobEnd(id=0, job_id=self.id, member=self._member, reaped_cpu_ns=reaped_cpu_ns())
            try:
                here().engine(self._environment).ask(end)
            except WattributeError as error:  # its engine was closed meanwhile: what it measured is on disk
                self.note(str(error))

    def _read(self, *, wait: bool) -> Receipt:
        if self._settled is not None and wait:
            return self._settled
        found: Mapping[str, Any] | None = None
        if os.getpid() == self._pid:
            with self._lock, _harmless("reading a receipt"):
                found = self._asked(wait) if self._client else self._measured() if self.measured_here else None
        receipt = Receipt(self._known() if found is None else found)
        if wait and receipt.settled:
            self._settled = receipt
        return receipt

    def _asked(self, wait: bool) -> Mapping[str, Any] | None:
        """The agent's receipt, with the closing read if that comes in time; None where the agent is lost."""
        assert self._client is not None
        try:
            try:
                timeout_s = self._wait_s + 0.2 if wait else 0.2
                answer = self._client.call("job.receipt", timeout_s, job_id=self.id, wait=wait)
            except AgentUnreachable:
                if not wait:
                    raise
                answer = self._client.call("job.receipt", job_id=self.id, wait=False)
        except (AgentUnreachable, AgentRefused) as error:
            here().say_once("lost", "%s; the receipt of job %r has what this process knows", error, self.id)
            self.note(f"no receipt from the agent ({error})")
            return None
        receipt = answer.get("receipt")
        return receipt if isinstance(receipt, dict) else None

    def _measured(self) -> Mapping[str, Any] | None:
        receipt = here().engine(self._environment).receipt(self.id)
        return None if receipt is None else {**receipt, "notes": list(dict.fromkeys([*receipt["notes"], *self._notes]))}

    def _known(self) -> dict[str, Any]:
        """A receipt without any agent: times of this process, and no claim about energy."""
        fields = self._fields
        notes = list(dict.fromkeys(self._notes))
        if os.getpid() != self._pid:
            notes.append(f"this is a fork's copy of the job; its receipt is in process {self._pid}")
        known: dict[str, Any] = {
            "product_id": fields.get("product_id", "default"),
            "uses": list(fields.get("uses", ())),
            "role": fields.get("role", "use"),
            "phase": fields.get("phase", ""),
            "parent_job_id": self._parent,
            "expected_nodes": fields.get("nodes", 1),
            "labels": dict(fields.get("labels", {})),
            "notes": [*notes, "no energy is known: only this process's CPU time"],
        }
        if self._began is not None:
            known.update((self._ended or used_here()).since(self._began, ended=self._ended is not None))
        return blank(self.id, **known)


def running_job() -> Job | None:
    """The innermost job that this thread or task is in."""
    job = _current.get()
    while job is not None and not job._running:
        job = job._outer
    return job


@contextmanager
def inside(job: Job) -> Iterator[None]:
    """For one step of a suspended function: jobs opened now are inside `job`."""
    before = _current.get()
    _current.set(job)
    try:
        yield
    finally:
        _current.set(before)


@contextmanager
def stepwise(job: Job) -> Iterator[None]:
    """Runs a job whose function is suspended now and then: its caller isn't inside of it."""
    before = _current.get()
    job.start()
    _current.set(before)
    try:
        yield
    finally:
        job.stop()


def _reaped() -> dict[str, int]:
    reaped_ns = reaped_cpu_ns()
    return {} if reaped_ns is None else {"reaped_cpu_ns": reaped_ns}


__all__ = ["Job", "inside", "running_job", "stepwise"]
