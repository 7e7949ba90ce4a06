"""meter(): the requests of a serving process, each with its part of the energy and carbon of the process.

On the path of a request only its tally runs (tally.py). The first one starts one thread per process, which opens the
job that all worker processes of the product are members of, and tells the agent what they served; it waits for the job
(200 ms at most), so that what it takes is measured from its beginning.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from wattribute.agent.client import Client
from wattribute.agent.meter.account_file import AccountFile
from wattribute.agent.meter.billing import Estimate
from wattribute.agent.meter.path import Begin, Requests
from wattribute.agent.meter.place import account_path
from wattribute.agent.meter.receipts import RequestReceipt
from wattribute.agent.meter.reporter import Reporter
from wattribute.agent.meter.request import Request
from wattribute.agent.meter.tally import Tally
from wattribute.agent.new_job import job
from wattribute.agent.process import here
from wattribute.agent.session import Job


class Meter:
    """Counts the requests of this process; made by `meter()`. Starts nothing before the first, or `start()`.

    A child of a fork counts for itself, with a thread of its own, as another worker of the same job.
    """

    begin: Begin
    """Begins a request of a tenant ("": nobody in particular) and weight, to be ended. Raises nothing."""
    request: Requests
    """A request for a `with`, begun now; `units` are served if it ends well. Raises nothing."""

    def __init__(self, new_job: Callable[[], Job], *, max_tenants: int, receipts: bool) -> None:
        self._new_job = new_job
        self._receipts = receipts
        self._job = new_job()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._reporter: Reporter | None = None
        self._stopped = False
        self._tally = Tally(AccountFile.open(_place(self._job.id)), max_tenants=max_tenants, on_first=self._first)
        self._tally.receipt_of = self._waited
        self._bind(self._tally)

    @property
    def job(self) -> Job:
        """The job whose energy the requests share; all worker processes of the product are members of it."""
        self._enter()
        return self._job

    @property
    def in_flight(self) -> int:
        """How many requests are under way in this process."""
        return self._tally.count_in_flight()

    def receipt(self, request_id: str) -> RequestReceipt | None:
        """What a request took, as far as it is known now; None for one without a receipt, of another process, or before
        the last 10,000. Never waits.
        """
        self._enter()
        return None if self._reporter is None else self._reporter.billing.receipt(request_id)

    def estimate(self, request: Request) -> Estimate | None:
        """What a request with a receipt took so far, at the rate of the last window; None before the first."""
        self._enter()
        return None if self._reporter is None else self._reporter.billing.estimate(request)

    def start(self) -> Self:
        """Opens the job now rather than at the first request: 200 ms at most, as for job(). Returns itself."""
        if not self._stopped:
            self._started()
        return self

    def stop(self) -> None:
        """Sends the last report and ends this process's part of the job; what is in flight is billed until now.

        Waits 200 ms at most. At exit it comes by itself. A meter that was stopped counts no more.
        """
        self._enter()
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            self._bind(Tally(AccountFile.open(None), on_first=self._late))
            reporter = self._reporter
        if reporter is None:
            self._tally.file.close()
        else:
            reporter.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<wattribute meter of job {self._job.id!r}{', stopped' if self._stopped else ''}>"

    def _bind(self, tally: Tally) -> None:
        """The tally's own functions, where nothing has to be added to them: a call costs as much as half a request."""
        self.begin, self.request = tally.begin, tally.request
        if self._receipts:

            def begin(tenant: str = "", weight: float = 1, receipt: bool | None = None) -> Request:
                return tally.begin(tenant, weight, receipt is None or receipt)

            def request(
                units: Mapping[str, float] | None = None,
                tenant: str = "",
                weight: float = 1,
                receipt: bool | None = None,
            ) -> Request:
                return tally.request(units, tenant, weight, receipt is None or receipt)

            begin.__doc__, request.__doc__ = tally.begin.__doc__, tally.request.__doc__  # for help()
            self.begin, self.request = begin, request

    def _enter(self) -> None:
        """In a child of a fork: the job and the thread are the parent's, and its lock may have been held."""
        if self._pid != os.getpid():
            self._lock, self._reporter, self._job = threading.Lock(), None, self._new_job()
            self._pid = os.getpid()

    def _started(self) -> Reporter:
        self._enter()
        with self._lock:
            if self._reporter is None:
                self._reporter = Reporter(self._job, self._tally.file, self._tally, all_have=self._receipts)
                self._reporter.start()
            return self._reporter

    def _first(self) -> None:
        """The tally has taken its slot for the first request."""
        if not self._stopped:
            self._started()

    def _late(self) -> None:
        here().say_once(
            f"stopped {self._job.id}", "the meter of job %r was stopped: its requests count no more", self._job.id
        )

    def _waited(self, request: Request) -> RequestReceipt | None:
        """A request's receipt; of one that has ended, once it is settled."""
        reporter = self._reporter
        if reporter is None or self._pid != os.getpid():
            return None
        known = reporter.billing.receipt(request.id)
        if known is None or known.ended_at is None or known.settled:
            return known
        reporter.wait(request.id)
        return reporter.billing.receipt(request.id)


def meter(
    product: str,
    *,
    uses: Iterable[str] = (),
    id: str | None = None,
    phase: str = "inference",
    labels: Mapping[str, str] | None = None,
    max_tenants: int = 100,
    receipts: bool = False,
) -> Meter:
    """A meter of the requests that this process serves for `product`, standing on `uses`; one per process.

    `id` names the job (default: serve-PRODUCT), whose members all worker processes are. Of more than `max_tenants`
    (1 to 254) tenants the rest share the name `_other`. `receipts`: every request has one. Raises ValueError for an
    argument of a wrong type; a name that can't be is made fit, with a warning.
    """
    if not isinstance(product, str):
        raise ValueError(f"product must be a string, not {product!r}")
    if not isinstance(max_tenants, int) or max_tenants < 1:
        raise ValueError(f"max_tenants must be a whole number from 1, not {max_tenants!r}")
    if not isinstance(uses, Iterable) or not isinstance(labels, Mapping | None):
        raise ValueError(f"uses are names of products, and labels a mapping, not {uses!r} and {labels!r}")
    names = [uses] if isinstance(uses, str) else list(uses)
    name = f"serve-{product or 'default'}" if id is None else id

    def new_job() -> Job:
        return job(name, product=product or None, uses=names, phase=phase, labels=labels)

    return Meter(new_job, max_tenants=max_tenants, receipts=bool(receipts))


def _place(job_id: str) -> Path | None:
    """The account of a job. Without an agent it is of this process alone: each then measures itself, in an engine of
    its own that knows nothing of the others.
    """
    client = Client.find(os.environ)
    if client is None:
        # Of the in-process engine's start the imports are the longest part: here no request waits for them, and what
        # forks workers has them once for all.
        with contextlib.suppress(ImportError):
            import wattribute.agent.opening  # noqa: F401
        return None
    client.close()
    return account_path(job_id, client.path, os.environ)


__all__ = ["Estimate", "Meter", "Request", "meter"]
