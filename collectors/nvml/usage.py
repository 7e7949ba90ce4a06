"""SM time per process of one GPU, made cumulative from the driver's utilization samples. Pure: no NVML in here.

A sample (pid, stamp, percent) says how busy a process kept the SMs up to its stamp. It stands for the time since the
process's sample before it. Percentages are of time: they need not add up to 100. Stamps are microseconds of a clock
that NVML doesn't name, so they are compared only with one another. Samples come each 1/6 s to 1 s, by product, and
each process's at times of its own (NVIDIA/go-nvml#51), so between two of them a process that holds a context goes on
at its last rate for as long as a sample lasts; what that gave too much, the next samples make good.
Source: nvml.h, nvmlDeviceGetProcessUtilization.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from wattribute.agent.core.attribution import apportion
from wattribute.agent.core.model import ProcessId, UsageReading
from wattribute.collectors.nvml.processes import HIDDEN, Processes

SHORTEST_US: Final = 1_000_000 // 6
LONGEST_US: Final = 1_000_000
"""What one sample of the driver covers, at least and at most (nvml.h, nvmlUtilization_t)."""

SILENCE_NS: Final = 60 * 1_000_000_000
"""After so long without a sample all of the driver's are looked at again: one stamp too high would hide the others."""


class Sample(NamedTuple):
    """One process's SM use up to a stamp, in percent of time."""

    pid: int
    stamp_us: int
    sm_percent: int


class Account:
    """A process's SM time on one GPU: what samples say (`known_ns`), and what was told (`busy_ns`), never falling."""

    __slots__ = ("busy_ns", "held_ns", "known_ns", "percent", "sampled_ns", "since_ns")

    def __init__(self, since_ns: int) -> None:
        self.since_ns = since_ns
        self.held_ns = since_ns  # when it last held a context, or was sampled if we can't see its contexts
        self.known_ns = 0
        self.busy_ns = 0
        self.percent = 0
        self.sampled_ns = since_ns

    def settle(self) -> None:
        """Takes what was told for known, before another source of SM time goes on from there."""
        self.known_ns, self.percent = self.busy_ns, 0

    def tell(self, at_ns: int, ahead_ns: int) -> int:
        """Brings `busy_ns` up to a moment, by at most `ahead_ns` beyond the last sample; returns by how much it grew.

        Stamps jitter against our reads; over its life a process can't have been busy longer than it lived.
        """
        before_ns = self.busy_ns
        ahead_ns = min(at_ns - self.sampled_ns, ahead_ns) * self.percent // 100
        self.busy_ns = max(before_ns, min(self.known_ns + ahead_ns, at_ns - self.since_ns))
        return self.busy_ns - before_ns


class SmTime:
    """The cumulative SM time of every process seen on one GPU; `accounts` may be shared with `SliceTime`."""

    def __init__(self, device: str, processes: Processes, accounts: dict[ProcessId, Account] | None = None) -> None:
        self._device = device
        self._processes = processes
        self._accounts = {} if accounts is None else accounts
        self._holders: dict[int, ProcessId] = {}
        self._stamps_us: dict[int, int] = {}  # each pid's newest sample
        self._period_us = SHORTEST_US  # between two samples of one process, as last seen
        self._in_step = False  # samples of different processes carry the same stamp
        self._served: set[ProcessId] = set()  # MPS servers, whose time is their clients'
        self._read_ns: int | None = None
        self._heard_ns = 0
        self.last_seen_us = 0

    def rebase(self) -> None:
        """Starts the sample clock anew (the driver was reloaded); what was accumulated stays."""
        self.last_seen_us = 0
        self._stamps_us.clear()
        self._read_ns = None
        for account in self._accounts.values():
            account.settle()

    def advance(self, at_ns: int, contexts: Mapping[int, int | None], samples: Iterable[Sample]) -> list[UsageReading]:
        """Books the samples and tells the use of every process that holds a context (pid -> bytes) or was sampled.

        The first read only sets the clock: the driver's buffer reaches back before it. A consumer starts at 0, and
        anew after a read without it, so whoever takes differences may take an absent one for 0. Who has left is
        told until its last sample must have come, with `held_ppb` 0.
        """
        new = sorted((s for s in samples if self._plausible(s)), key=lambda sample: sample.stamp_us)
        tenants, servers = self._processes.sort(contexts)
        before, self._holders = self._holders, tenants | servers
        for consumer in self._served.intersection(tenants.values()):  # its clients are gone, and paid until now
            self._served.remove(consumer)
            self._accounts.pop(consumer, None)
        since_ns = at_ns if self._read_ns is None else self._read_ns
        for consumer in self._holders.values():
            self._account(consumer, since_ns).held_ns = at_ns
        if new:
            if self._read_ns is not None:
                self._book(new, at_ns, since_ns, before)
            self.last_seen_us = new[-1].stamp_us
            self._stamps_us.update((sample.pid, sample.stamp_us) for sample in new)
            old_us = self.last_seen_us - 2 * LONGEST_US
            self._stamps_us = {pid: us for pid, us in self._stamps_us.items() if us > old_us or pid in self._holders}
            self._heard_ns = at_ns
        elif self._read_ns is None:
            self._heard_ns = at_ns
        self._read_ns = at_ns
        self._forget(at_ns, before)
        self._share_out(list(servers.values()), list(tenants.values()), at_ns)
        if at_ns - self._heard_ns >= SILENCE_NS:
            self.rebase()
        memory_bytes = {consumer: contexts[pid] for pid, consumer in tenants.items()}
        ahead_ns = self._period_us * 1000
        readings = []
        for consumer, account in self._accounts.items():
            if consumer in self._served:
                continue
            holds = consumer in memory_bytes
            account.tell(at_ns, ahead_ns if holds or consumer.start_ticks == HIDDEN else 0)
            readings.append(
                UsageReading(
                    domain_kind="gpu",
                    consumer=consumer,
                    at_ns=at_ns,
                    busy_ns=account.busy_ns,
                    memory_bytes=memory_bytes.get(consumer),
                    device=self._device,
                    held_ppb=None if holds or consumer.start_ticks == HIDDEN else 0,
                )
            )
        return readings

    def _plausible(self, sample: Sample) -> bool:
        # Drivers have answered pid 0 and thousands of percent (nvtop#110), and samples already seen (go-nvml#51).
        return sample.pid != 0 and sample.sm_percent <= 100 and sample.stamp_us > self.last_seen_us

    def _book(self, samples: list[Sample], at_ns: int, since_ns: int, before: Mapping[int, ProcessId]) -> None:
        """Credits each sample, oldest first, for the time since the process's sample before it."""
        newest_us = samples[-1].stamp_us
        elapsed_us = (at_ns - since_ns) // 1000
        self._in_step |= len({sample.stamp_us for sample in samples}) < len(samples)
        # Where one stamp serves all, a process without a sample at the newest one was idle until then.
        floor_us = self.last_seen_us if self._in_step else 0
        translated = self._translate({sample.pid for sample in samples}, before)
        for pid, stamp_us, sm_percent in samples:
            account = self._account(self._owner(translated.get(pid, pid), before), since_ns)
            last_us = self._stamps_us.get(pid, 0)
            self._stamps_us[pid] = stamp_us
            born_us = newest_us - (at_ns - account.since_ns) // 1000
            start_us = max(last_us, floor_us, born_us)
            if stamp_us - start_us > elapsed_us + LONGEST_US:  # it was silent, so this is one sample's worth
                start_us = stamp_us - max(elapsed_us, self._period_us)
            elif start_us == last_us:
                self._period_us = min(stamp_us - last_us, LONGEST_US)
            if stamp_us > start_us:
                account.known_ns += (stamp_us - start_us) * sm_percent * 10
                account.percent = sm_percent
                account.sampled_ns = at_ns
                if pid not in self._holders and pid not in before:
                    account.held_ns = at_ns

    def _translate(self, sampled: set[int], before: Mapping[int, ProcessId]) -> dict[int, int]:
        """The pid of a context for a pid of samples, where they differ and only one answer is possible.

        Newer drivers translate the pids of contexts into our pid namespace, but not those of samples (HAMi-core#112).
        """
        if not self._processes.nested:
            return {}
        unsampled = self._holders.keys() - sampled
        strangers = sampled - self._holders.keys() - before.keys()
        return {strangers.pop(): unsampled.pop()} if len(unsampled) == len(strangers) == 1 else {}

    def _owner(self, pid: int, before: Mapping[int, ProcessId]) -> ProcessId:
        """Whose a sample is: who holds or held the context. In doubt it is nobody's, never somebody else's."""
        now, then = self._holders.get(pid), before.get(pid)
        if now is not None and then is not None and now != then:
            return ProcessId(pid, HIDDEN)  # the pid was recycled between two reads
        return now or then or ProcessId(pid, HIDDEN)

    def _forget(self, at_ns: int, before: Mapping[int, ProcessId]) -> None:
        """Drops who left more than a sample ago; whoever left since then may have one still to come."""
        for consumer, account in list(self._accounts.items()):
            holder = self._holders.get(consumer.pid)
            if holder == consumer:
                continue
            recycled = holder is not None and consumer.start_ticks != HIDDEN
            if recycled or at_ns - account.held_ns > LONGEST_US * 1000:
                del self._accounts[consumer]
            elif holder is None and before.get(consumer.pid) == consumer:
                self._holders[consumer.pid] = consumer

    def _share_out(self, servers: Sequence[ProcessId], clients: Sequence[ProcessId], at_ns: int) -> None:
        """Gives the SM time of MPS servers to those they work for: the other contexts, in equal parts."""
        self._served = (self._served & self._accounts.keys()) | set(servers)
        for server in servers:
            grown_ns = self._accounts[server].tell(at_ns, self._period_us * 1000)
            for client, part_ns in zip(clients, apportion(grown_ns, [1] * len(clients)), strict=True):
                self._accounts[client].known_ns += part_ns

    def _account(self, consumer: ProcessId, since_ns: int) -> Account:
        account = self._accounts.get(consumer)
        if account is None:
            account = self._accounts[consumer] = Account(since_ns)
        return account
