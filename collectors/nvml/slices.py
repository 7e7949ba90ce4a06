"""Who uses and holds a board in MIG mode, made cumulative per process. Pure: no NVML in here.

The driver tells no SM time per process under MIG, so it is put together: an instance's SMs, how busy they were (or,
where that can't be told, whether a process was there), and its processes in equal parts. Slices that an instance was
made of are held by its processes; all parts, with those of empty instances and of no instance, are the whole board.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from wattribute.agent.core.attribution import PPB, apportion
from wattribute.agent.core.model import ProcessId, UsageReading
from wattribute.collectors.nvml.processes import Processes
from wattribute.collectors.nvml.usage import Account

PPM: Final = 1_000_000


class Instance(NamedTuple):
    """A compute instance (what CUDA calls a MIG device) and who has a context on it (pid -> bytes).

    Several may share one GPU instance: `slices` are the GPU instance's, `sms` the compute instance's own.
    """

    uuid: str
    gpu_instance: int
    slices: int
    sms: int
    contexts: Mapping[int, int | None]


class SliceTime:
    """The cumulative SM time, and the parts held, of every process on one board in MIG mode.

    SM time is that of the board: an instance with half of all instances' SMs that is busy for a second makes 0.5 s.
    """

    def __init__(self, device: str, processes: Processes, accounts: dict[ProcessId, Account]) -> None:
        self._device = device
        self._processes = processes
        self._accounts = accounts
        self._tenants: dict[str, list[ProcessId]] = {}  # by instance
        self._read_ns: int | None = None

    def rebase(self) -> None:
        """Starts anew (MIG was off in between); what was accumulated stays."""
        self._read_ns = None
        self._tenants = {}

    def advance(
        self,
        at_ns: int,
        instances: Sequence[Instance],
        board_slices: int,
        activity_ppm: Mapping[int, int] | None,
        *,
        complete: bool = True,
    ) -> list[UsageReading]:
        """Tells the use of every process on the board and the part it holds, and what is allocated to nobody.

        `board_slices` are the most that can be allocated. `activity_ppm` says how busy each GPU instance was since
        the read before; without it, or without that of an instance with processes, all instances with a process count
        as busy. `complete`: no instance is missing, so what is left is allocated to nobody.

        An instance's time goes to the processes that were on it at either end of the window; who left is told once
        more, with `held_ppb` 0. A consumer starts at 0, and anew after a read without it.
        """
        window_ns = 0 if self._read_ns is None else at_ns - self._read_ns
        before, self._tenants, self._read_ns = self._tenants, {}, at_ns
        memory_bytes: dict[ProcessId, int | None] = {}
        sharers: dict[str, list[ProcessId]] = {}
        for instance in instances:
            tenants, _ = self._processes.sort(instance.contexts)
            self._tenants[instance.uuid] = list(tenants.values())
            sharers[instance.uuid] = list(dict.fromkeys([*tenants.values(), *before.get(instance.uuid, ())]))
            for pid, consumer in tenants.items():
                memory_bytes[consumer] = _sum(memory_bytes.get(consumer, 0), instance.contexts[pid])
        held_ppb, free_ppb = self._held(instances, board_slices)
        spent_ns = _spent(instances, sharers, window_ns, activity_ppm)
        readings = []
        for consumer in dict.fromkeys([*memory_bytes, *spent_ns]):
            account = self._accounts.get(consumer)
            if account is None:
                account = self._accounts[consumer] = Account(at_ns - window_ns)
            account.busy_ns += spent_ns.get(consumer, 0)
            held, memory = held_ppb.get(consumer, 0), memory_bytes.get(consumer)
            readings.append(UsageReading("gpu", consumer, at_ns, account.busy_ns, memory, self._device, held))
        for gone in self._accounts.keys() - memory_bytes.keys():
            del self._accounts[gone]
        if complete:
            readings.append(UsageReading("gpu", "unallocated", at_ns, 0, None, self._device, free_ppb))
        return readings

    def _held(self, instances: Sequence[Instance], board_slices: int) -> tuple[dict[ProcessId, int], int]:
        """What each process holds, and what no instance was made of: with empty instances, a billion together."""
        grouped = _by_gpu_instance(instances)
        slices = [of[0].slices for of in grouped.values()]
        free = max(0, board_slices - sum(slices))
        *parts_ppb, free_ppb = apportion(PPB, [*slices, free]) if free or any(slices) else [*slices, PPB]
        held_ppb: dict[ProcessId, int] = {}
        for part_ppb, of in zip(parts_ppb, grouped.values(), strict=True):
            for own_ppb, instance in zip(apportion(part_ppb, _sms(of)), of, strict=True):
                _spread(own_ppb, self._tenants[instance.uuid], held_ppb)
        return held_ppb, free_ppb


def _spent(
    instances: Sequence[Instance],
    sharers: Mapping[str, Sequence[ProcessId]],
    window_ns: int,
    activity_ppm: Mapping[int, int] | None,
) -> dict[ProcessId, int]:
    """SM time of the window by process: activity x SMs / SMs of all instances."""
    all_sms = sum(_sms(instances))
    spent_ns: dict[ProcessId, int] = {}
    occupied = _by_gpu_instance([instance for instance in instances if sharers[instance.uuid]])
    if activity_ppm is None or not occupied.keys() <= activity_ppm.keys():
        for of in occupied.values():
            for instance, sms in zip(of, _sms(of), strict=True):
                _spread(window_ns * sms // all_sms, sharers[instance.uuid], spent_ns)
        return spent_ns
    whole = _by_gpu_instance(instances)
    for gpu_instance, of in occupied.items():
        busy_ns = window_ns * activity_ppm[gpu_instance] * sum(_sms(whole[gpu_instance])) // (all_sms * PPM)
        for own_ns, instance in zip(apportion(busy_ns, _sms(of)), of, strict=True):
            _spread(own_ns, sharers[instance.uuid], spent_ns)
    return spent_ns


def _by_gpu_instance(instances: Sequence[Instance]) -> dict[int, list[Instance]]:
    grouped: dict[int, list[Instance]] = {}
    for instance in instances:
        grouped.setdefault(instance.gpu_instance, []).append(instance)
    return grouped


def _sms(instances: Sequence[Instance]) -> list[int]:
    return [max(1, instance.sms) for instance in instances]  # one that claims to have none still is one


def _spread(total: int, consumers: Sequence[ProcessId], into: dict[ProcessId, int]) -> None:
    if consumers:
        for consumer, part in zip(consumers, apportion(total, [1] * len(consumers)), strict=True):
            into[consumer] = into.get(consumer, 0) + part


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
