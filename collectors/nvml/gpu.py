"""One GPU (a whole board, MIG or not): which energy source it has, found by asking it, who uses it, what it reads now.

In order: the energy counter; the 1 s average of power; nothing. The instantaneous power of older chips (A100 and
before) shows 10 to 25 ms of each 20 to 100 ms (arXiv 2312.02741), so integrating it at 1 s would be a guess.
Units of NVML: millijoules since the driver was loaded, milliwatts, bytes. Source: nvml.h.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from wattribute.agent.core.model import (
    Domain,
    EnergyReading,
    Fault,
    PowerReading,
    ProcessId,
    Reading,
    UsageReading,
)
from wattribute.agent.core.units import NS_PER_S
from wattribute.collectors.nvml.contexts import COMPUTE, GRAPHICS, LISTS, add_contexts
from wattribute.collectors.nvml.library import Nvml, is_over, is_unsupported
from wattribute.collectors.nvml.mig import Partition
from wattribute.collectors.nvml.processes import HIDDEN, Processes
from wattribute.collectors.nvml.slices import SliceTime
from wattribute.collectors.nvml.usage import Account, Sample, SmTime

Method: TypeAlias = Literal["counter", "average field", "average power", "none"]

CEILING_FLOOR_UW: Final = 1_500_000_000
"""No board draws more today; a ceiling below it could take a burst for a broken counter."""

_AVERAGED_SINCE: Final = (8, 6)
"""Compute capability from which nvmlDeviceGetPowerUsage is a 1 s average; 8.0 is GA100, which isn't (nvml.h)."""

_INSTANT_DRIVER: Final = "530."
"""The one driver branch where nvmlDeviceGetPowerUsage is a 100 ms value on those chips too (arXiv 2312.02741)."""

_UNION_MEMBER: Final = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
"""Which member of a field value's union holds the number, by nvmlValueType_t; another one reads truncated."""

_UTILIZATION: Final = "nvmlDeviceGetProcessUtilization"

_PARTS: Final = {
    COMPUTE: "its compute processes",
    GRAPHICS: "its graphics processes",
    _UTILIZATION: "SM use per process",
}

_INSTANCES: Final = "nvmlDeviceGetMaxMigDeviceCount"

_FIXES: Final = {
    "energy": "nvidia-smi -q -d POWER shows what this driver offers; a newer driver may have the counter",
    "GPM": "run the agent as root, or load the nvidia module with NVreg_RestrictProfilingToAdminUsers=0",
}

_MODE_NS: Final = NS_PER_S
"""How often a board that can be cut into instances is asked whether it is."""

_ENERGY_WORDS: Final[dict[Method, str]] = {
    "counter": "energy counter",
    "average field": "averaged power (field)",
    "average power": "averaged power",
    "none": "no energy",
}


class Gpu:
    """A GPU by its UUID, which survives driver reloads and changes of order; its handle doesn't, and is looked up."""

    def __init__(self, nvml: Nvml, uuid: str, clock: Callable[[], int], processes: Processes) -> None:
        self.domain = Domain(kind="gpu", id=uuid)
        self.method: Method = "none"
        self.missing: dict[str, str] = {}  # NVML call, or part of the GPU -> why it can't be used
        self._nvml = nvml
        self._clock = clock
        accounts: dict[ProcessId, Account] = {}  # one per process, whether MIG is on or off
        self._sm_time = SmTime(uuid, processes, accounts)
        self._slice_time = SliceTime(uuid, processes, accounts)
        self._handle: Any = None
        self._partition: Partition | None = None  # None: MIG is off, or its instances can't be told apart
        self._mig: bool | None = None  # None: the board has no such thing
        self._mode_ns = 0
        self._ceiling_uw = CEILING_FLOOR_UW
        self._has_counter = False
        self._resumed = False
        self._told: set[str] = set()

    @property
    def how(self) -> str:
        """In words, how its energy is read and split."""
        if self._partition is not None:
            by = "slices and GPM activity" if self._partition.has_activity else "slices of instances with a process"
            return f"{_ENERGY_WORDS[self.method]}, MIG: by {by}"
        if _UTILIZATION in self.missing or self._mig:
            return f"{_ENERGY_WORDS[self.method]}, no SM time per process: equal parts of holders"
        return f"{_ENERGY_WORDS[self.method]}, split by SM time"

    def drop_handle(self, *, driver_changed: bool) -> None:
        """Looks the GPU up anew at the next read; with another driver it may have other abilities."""
        self._handle = None
        if self._partition is not None:
            self._partition.close()
            self._partition = None
        if driver_changed:
            self._has_counter = False
            self._sm_time.rebase()
            self._slice_time.rebase()

    def give_up(self) -> None:
        """Somebody else has the GPU from now on: its next reading says that nobody looked meanwhile."""
        self._resumed = True

    def read(self) -> list[Reading]:
        """Energy or averaged power, then who holds a context; raises NVMLError for whatever isn't a lack of support.

        What the GPU lacks is told by a Fault, once.
        """
        now_ns = self._clock()
        if self._handle is None:
            self._open(now_ns)
        elif self._mig is not None and now_ns - self._mode_ns >= _MODE_NS and self._switched(now_ns):
            self._reopen(now_ns)
        partition = self._partition
        if partition is not None:
            known = len(self.missing)
            instances = partition.read(now_ns)
            if len(self.missing) > known and self._switched(now_ns):  # not failing: switched off
                self._reopen(now_ns)
                return self.read()
            energy, at_ns = self._read_energy()
            activity_ppm = partition.activity_ppm(at_ns)
            usage = self._slice_time.advance(
                at_ns, instances, partition.most, activity_ppm, complete=partition.complete
            )
        else:
            contexts = self._contexts()
            samples = self._samples(now_ns)
            energy, at_ns = self._read_energy()
            usage = self._sm_time.advance(at_ns, contexts, samples)
            if not usage and self.missing.keys() >= set(LISTS):
                # Who isn't told isn't nobody: a stranger stands for them, so that no load is taken for idle power.
                stranger = ProcessId(0, HIDDEN)
                usage = [UsageReading("gpu", stranger, at_ns, 0, None, self.domain.id)]
        readings: list[Reading] = self._lacks(at_ns) if self.missing.keys() - self._told else []
        readings += energy
        readings += usage
        self._resumed = False
        return readings

    def _open(self, now_ns: int) -> None:
        self._handle = handle = self._nvml.nvmlDeviceGetHandleByUUID(self.domain.id)
        try:
            self.missing = {}
            self.method = self._choose()
            limit = self._supported("nvmlDeviceGetPowerManagementLimitConstraints")
            self._ceiling_uw = max(CEILING_FLOOR_UW, 2 * limit[1] * 1000 if limit else 0)
            self._open_instances(handle, now_ns)
            if self._partition is None:
                # Under MIG there is no SM use per process (nvml.h), and that is no fault.
                for call in _PARTS if not self._mig else LISTS:
                    self._ask_part(call, handle)
        except self._nvml.NVMLError:
            self._handle = None
            raise

    def _open_instances(self, handle: Any, now_ns: int) -> None:
        was_on, self._mig, self._mode_ns = self._mig, self._asks_for_instances(handle), now_ns
        if bool(was_on) != bool(self._mig):
            self._sm_time.rebase()
            self._slice_time.rebase()
        if not self._mig:
            return
        try:
            self._partition = Partition(self._nvml, handle, self.missing)
        except self._nvml.NVMLError as error:
            if is_over(self._nvml, error.value):
                raise
            self.missing[_INSTANCES] = f"its MIG instances can't be told apart: {error}"

    def _asks_for_instances(self, handle: Any) -> bool | None:
        """Whether MIG is on; None for a GPU that has none, or doesn't say."""
        try:
            return bool(self._nvml.nvmlDeviceGetMigMode(handle)[0] == self._nvml.NVML_DEVICE_MIG_ENABLE)
        except self._nvml.NVMLError as error:
            if is_over(self._nvml, error.value):
                raise
            return None

    def _switched(self, now_ns: int) -> bool:
        """Whether MIG was switched on or off since it was last asked for."""
        self._mode_ns = now_ns
        now = self._asks_for_instances(self._handle)
        return now is not None and now != self._mig

    def _reopen(self, now_ns: int) -> None:
        self.drop_handle(driver_changed=False)
        self._open(now_ns)

    def _choose(self) -> Method:
        """The best source that answers now. A counter that once answered is never given up for a worse source."""
        nvml = self._nvml
        if self._has_counter or self._supported("nvmlDeviceGetTotalEnergyConsumption") is not None:
            self._has_counter = True
            return "counter"
        try:
            self._average_field_mw()
            return "average field"
        except nvml.NVMLError as error:
            if not is_unsupported(nvml, error.value):
                raise
        capability = self._supported("nvmlDeviceGetCudaComputeCapability")
        driver = nvml.nvmlSystemGetDriverVersion()
        if capability is None or capability < _AVERAGED_SINCE or driver.startswith(_INSTANT_DRIVER):
            chip = "of unknown kind" if capability is None else "of compute capability {}.{}".format(*capability)
            self.missing["energy"] = (
                f"no energy counter and no averaged power (chip {chip}, driver {driver}); "
                "instantaneous power isn't integrated, because it shows a quarter of the time or less"
            )
            return "none"
        if self._supported("nvmlDeviceGetPowerUsage") is None:
            self.missing["energy"] = "no energy counter and no power reading (a vGPU guest has neither)"
            return "none"
        return "average power"

    def _supported(self, call: str) -> Any:
        """What a call on this GPU answers; None where GPU or driver doesn't have it."""
        try:
            return getattr(self._nvml, call)(self._handle)
        except self._nvml.NVMLError as error:
            if not is_unsupported(self._nvml, error.value):
                raise
            return None

    def _ask_part(self, call: str, handle: Any) -> None:
        """Tries a call about processes. Energy counts without it, so only the loss of the GPU itself is raised."""
        nvml = self._nvml
        try:
            if call == _UTILIZATION:
                nvml.nvmlDeviceGetProcessUtilization(handle, 0)
            else:
                getattr(nvml, call)(handle)
        except nvml.NVMLError as error:
            if is_over(nvml, error.value):
                raise
            # SUCCESS without samples is raised by the binding; NOT_FOUND means that nothing ran.
            passing = (nvml.NVML_SUCCESS, nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INSUFFICIENT_SIZE)
            if error.value not in passing:
                self.missing[call] = f"{_PARTS[call]} can't be read: {error}"

    def _lacks(self, at_ns: int) -> list[Reading]:
        new = {what: cause for what, cause in self.missing.items() if what not in self._told}
        self._told.update(new)
        return [
            Fault(domain=self.domain, at_ns=at_ns, cause=cause, fix=_FIXES.get(what, "")) for what, cause in new.items()
        ]

    def _read_energy(self) -> tuple[list[Reading], int]:
        """The energy or power reading, if there is a source, and its time."""
        nvml, handle = self._nvml, self._handle
        if self.method == "counter":
            energy_uj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1000
            at_ns = self._clock()
            counted = EnergyReading(
                domain=self.domain, at_ns=at_ns, energy_uj=energy_uj, ceiling_uw=self._ceiling_uw, resumed=self._resumed
            )
            return [counted], at_ns
        if self.method == "none":
            return [], self._clock()
        field = self.method == "average field"
        power_mw = self._average_field_mw() if field else nvml.nvmlDeviceGetPowerUsage(handle)
        at_ns = self._clock()
        averaged = PowerReading(domain=self.domain, at_ns=at_ns, power_uw=power_mw * 1000, resumed=self._resumed)
        return [averaged], at_ns

    def _average_field_mw(self) -> int:
        """Field 185 (POWER_AVERAGE, GPU scope): the call may succeed although the value failed."""
        nvml = self._nvml
        field = nvml.nvmlDeviceGetFieldValues(self._handle, [nvml.NVML_FI_DEV_POWER_AVERAGE])[0]
        if field.nvmlReturn != nvml.NVML_SUCCESS:
            raise nvml.NVMLError(field.nvmlReturn)
        member = _UNION_MEMBER.get(field.valueType)
        if member is None:
            raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
        return int(getattr(field.value, member))

    def _contexts(self) -> dict[int, int | None]:
        """The processes that hold a context, with their device memory in bytes (None: not known)."""
        contexts: dict[int, int | None] = {}
        for call in LISTS:
            if call not in self.missing:
                add_contexts(contexts, getattr(self._nvml, call)(self._handle))
        return contexts

    def _samples(self, now_ns: int) -> list[Sample]:
        """Utilization samples newer than the newest one seen (not than a wall clock: the stamp's clock has no name)."""
        nvml = self._nvml
        if _UTILIZATION in self.missing or self._mig:
            return []
        try:
            answers = nvml.nvmlDeviceGetProcessUtilization(self._handle, self._sm_time.last_seen_us)
        except nvml.NVMLError as error:
            # The binding raises SUCCESS too, where the driver has no samples.
            if error.value in (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_SUCCESS):
                return []
            if not is_unsupported(nvml, error.value):
                raise
            # MIG was switched on a moment ago (which the next read sees), or a vGPU moved to an older driver.
            self._mode_ns = now_ns - _MODE_NS
            if not (self._mig is not None and self._asks_for_instances(self._handle)):
                self.missing[_UTILIZATION] = f"{_PARTS[_UTILIZATION]} can't be read any more: {error}"
            return []
        return [Sample(answer.pid, answer.timeStamp, answer.smUtil) for answer in answers]
