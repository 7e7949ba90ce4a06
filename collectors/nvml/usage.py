"""SM time per process of one GPU, made cumulative from the driver's utilization samples. Pure: no NVML in here.

A sample (pid, stamp, percent) says how busy a process kept the SMs up to its stamp. It stands for the time since the
process's sample before it, or since the newest sample of the read before. Percentages are of time: they need not add
up to 100. Stamps are microseconds of a clock that NVML doesn't name, so they are compared only with one another.
Source: nvml.h, nvmlDeviceGetProcessUtilization.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from wattribute.agent.core.model import ProcessId, UsageReading

SAMPLE_PERIOD_US = 1_000_000
"""The driver averages over 1/6 s to 1 s, by product: what a first sample may reach back beyond the read before."""

HIDDEN = -1
"""Start time of a process that can't be identified: outside our pid namespace, or gone. It belongs to no job."""


class Sample(NamedTuple):
    """One process's SM use up to a stamp, in percent of time."""

    pid: int
    stamp_us: int
    sm_percent: int


class _Account:
    __slots__ = ("busy_ns", "since_ns")

    def __init__(self, since_ns: int) -> None:
        self.since_ns = since_ns
        self.busy_ns = 0


class SmTime:
    """The cumulative SM time of every process seen on one GPU."""

    def __init__(self, device: str, identify: Callable[[int], ProcessId | None]) -> None:
        self._device = device
        self._identify = identify
        self._accounts: dict[ProcessId, _Account] = {}
        self._holders: dict[int, ProcessId] = {}
        self._read_ns: int | None = None
        self.last_seen_us = 0

    def rebase(self) -> None:
        """Starts the sample clock anew (the driver was reloaded); what was accumulated stays."""
        self.last_seen_us = 0
        self._read_ns = None

    def advance(self, at_ns: int, contexts: Mapping[int, int | None], samples: Iterable[Sample]) -> list[UsageReading]:
        """Books the samples and tells the use of every process that holds a context (pid -> bytes) or was sampled.

        The first read only sets the clock: the driver's buffer reaches back before it. A consumer starts at 0, and
        anew after a read without it, so whoever takes differences may take an absent one for 0.
        """
        before, self._holders = self._holders, {}
        for pid in contexts:
            self._holders[pid] = self._identify(pid) or ProcessId(pid, HIDDEN)
        since_ns = at_ns if self._read_ns is None else self._read_ns
        present = {consumer: contexts[pid] for pid, consumer in self._holders.items()}
        new = [sample for sample in samples if self._plausible(sample)]
        if new:
            busy_ns = self._spread(new, (at_ns - since_ns) // 1000)
            for pid, spent_ns in busy_ns.items() if self._read_ns is not None else ():
                consumer = self._owner(pid, before)
                present.setdefault(consumer, None)
                account = self._account(consumer, since_ns)
                # Stamps jitter against our reads; over a process's life it can't have been busy longer than it lived.
                account.busy_ns = min(account.busy_ns + spent_ns, at_ns - account.since_ns)
            self.last_seen_us = max(sample.stamp_us for sample in new)
        self._read_ns = at_ns
        self._accounts = {consumer: self._account(consumer, since_ns) for consumer in present}
        return [
            UsageReading(
                domain_kind="gpu",
                consumer=consumer,
                at_ns=at_ns,
                busy_ns=self._accounts[consumer].busy_ns,
                memory_bytes=memory_bytes,
                device=self._device,
            )
            for consumer, memory_bytes in present.items()
        ]

    def _plausible(self, sample: Sample) -> bool:
        # Drivers have answered pid 0 and thousands of percent (nvtop#110), and samples already seen (go-nvml#51).
        return sample.pid != 0 and sample.sm_percent <= 100 and sample.stamp_us > self.last_seen_us

    def _spread(self, samples: list[Sample], elapsed_us: int) -> dict[int, int]:
        """Nanoseconds of SM time per pid; after a pause a sample reaches back no further than the read before."""
        samples.sort(key=lambda sample: sample.stamp_us)
        floor_us = max(self.last_seen_us, samples[-1].stamp_us - elapsed_us - SAMPLE_PERIOD_US)
        reached_us: dict[int, int] = {}
        busy_ns: dict[int, int] = {}
        for pid, stamp_us, sm_percent in samples:
            span_us = stamp_us - max(floor_us, reached_us.get(pid, 0))
            if span_us > 0:
                busy_ns[pid] = busy_ns.get(pid, 0) + span_us * sm_percent * 10
                reached_us[pid] = stamp_us
        return busy_ns

    def _owner(self, pid: int, before: Mapping[int, ProcessId]) -> ProcessId:
        """Whose a sample is: who holds or held the context. In doubt it is nobody's, never somebody else's.

        Newer drivers translate the pids of contexts into our pid namespace, but not those of samples, so the pid of
        a sample alone may be an unrelated process's (HAMi-core#112).
        """
        now, then = self._holders.get(pid), before.get(pid)
        if now is not None and then is not None and now != then:
            return ProcessId(pid, HIDDEN)  # the pid was recycled between two reads
        return now or then or ProcessId(pid, HIDDEN)

    def _account(self, consumer: ProcessId, since_ns: int) -> _Account:
        account = self._accounts.get(consumer)
        if account is None:
            account = self._accounts[consumer] = _Account(since_ns)
        return account
