"""One GPU (a whole board, MIG or not): which energy source it has, found by asking it, and what it reads now.

In order: the energy counter; the 1 s average of power; nothing. The instantaneous power of older chips (A100 and
before) shows 10 to 25 ms of each 20 to 100 ms (arXiv 2312.02741), so integrating it at 1 s would be a guess.
Units of NVML: millijoules since the driver was loaded, milliwatts, bytes. Source: nvml.h.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from wattribute.agent.core.model import Domain, EnergyReading, Fault, PowerReading, ProcessId, Reading
from wattribute.collectors.nvml.library import Nvml
from wattribute.collectors.nvml.usage import Sample, SmTime

Method: TypeAlias = Literal["counter", "average field", "average power", "none"]

CEILING_FLOOR_UW: Final = 1_500_000_000
"""No board draws more today; a ceiling below it could take a burst for a broken counter."""

_AVERAGED_SINCE: Final = (8, 6)
"""Compute capability from which nvmlDeviceGetPowerUsage is a 1 s average; 8.0 is GA100, which isn't (nvml.h)."""

_INSTANT_DRIVER: Final = "530."
"""The one driver branch where nvmlDeviceGetPowerUsage is a 100 ms value on those chips too (arXiv 2312.02741)."""

_UNION_MEMBER: Final = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
"""Which member of a field value's union holds the number, by nvmlValueType_t; another one reads truncated."""

_PARTS: Final = {
    "nvmlDeviceGetComputeRunningProcesses_v3": "its compute processes",
    "nvmlDeviceGetGraphicsRunningProcesses_v3": "its graphics processes",
    "nvmlDeviceGetProcessUtilization": "SM use per process",
}


class Gpu:
    """A GPU by its UUID, which survives driver reloads and changes of order; its handle doesn't, and is looked up."""

    def __init__(
        self, nvml: Nvml, uuid: str, clock: Callable[[], int], identify: Callable[[int], ProcessId | None]
    ) -> None:
        self.domain = Domain(kind="gpu", id=uuid)
        self.method: Method = "none"
        self.missing: dict[str, str] = {}  # NVML call -> why it can't be used on this GPU
        self._nvml = nvml
        self._clock = clock
        self._sm_time = SmTime(uuid, identify)
        self._handle: Any = None
        self._ceiling_uw = CEILING_FLOOR_UW
        self._has_counter = False
        self._told: set[str] = set()

    def drop_handle(self, *, driver_changed: bool) -> None:
        """Looks the GPU up anew at the next read; with another driver it may have other abilities."""
        self._handle = None
        if driver_changed:
            self._has_counter = False
            self._sm_time.rebase()

    def read(self) -> list[Reading]:
        """Energy or averaged power, then who holds a context; raises NVMLError for whatever isn't a lack of support.

        What the GPU lacks is told by a Fault, once.
        """
        if self._handle is None:
            self._open()
        contexts = self._contexts()
        samples = self._samples()
        readings: list[Reading] = self._lacks() if self.missing.keys() - self._told else []
        at_ns = self._read_energy(readings)
        readings += self._sm_time.advance(at_ns, contexts, samples)
        return readings

    def _open(self) -> None:
        self._handle = handle = self._nvml.nvmlDeviceGetHandleByUUID(self.domain.id)
        try:
            self.missing = {}
            self.method = self._choose()
            limit = self._supported("nvmlDeviceGetPowerManagementLimitConstraints")
            self._ceiling_uw = max(CEILING_FLOOR_UW, 2 * limit[1] * 1000 if limit else 0)
            for call in _PARTS:
                self._ask_part(call, handle)
        except self._nvml.NVMLError:
            self._handle = None
            raise

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
            if not self._unsupported(error):
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
            if not self._unsupported(error):
                raise
            return None

    def _unsupported(self, error: Any) -> bool:
        return error.value in (self._nvml.NVML_ERROR_NOT_SUPPORTED, self._nvml.NVML_ERROR_FUNCTION_NOT_FOUND)

    def _ask_part(self, call: str, handle: Any) -> None:
        """Tries a call about processes. Energy counts without it, so only the loss of the GPU itself is raised."""
        nvml = self._nvml
        try:
            if call == "nvmlDeviceGetProcessUtilization":
                nvml.nvmlDeviceGetProcessUtilization(handle, 0)
            else:
                getattr(nvml, call)(handle)
        except nvml.NVMLError as error:
            if error.value in (
                nvml.NVML_ERROR_UNINITIALIZED,
                nvml.NVML_ERROR_DRIVER_NOT_LOADED,
                nvml.NVML_ERROR_GPU_IS_LOST,
                nvml.NVML_ERROR_RESET_REQUIRED,
                nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
            ):
                raise
            # SUCCESS without samples is raised by the binding; NOT_FOUND means that nothing ran.
            passing = (nvml.NVML_SUCCESS, nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INSUFFICIENT_SIZE)
            if error.value not in passing:
                self.missing[call] = f"{_PARTS[call]} can't be read: {error}"

    def _lacks(self) -> list[Reading]:
        new = {call: cause for call, cause in self.missing.items() if call not in self._told}
        self._told.update(new)
        at_ns = self._clock()
        fix = {"energy": "nvidia-smi -q -d POWER shows what this driver offers; a newer driver may have the counter"}
        return [
            Fault(domain=self.domain, at_ns=at_ns, cause=cause, fix=fix.get(call, "")) for call, cause in new.items()
        ]

    def _read_energy(self, readings: list[Reading]) -> int:
        """Appends the energy or power reading, if there is a source, and returns its time."""
        nvml, handle = self._nvml, self._handle
        if self.method == "counter":
            energy_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            at_ns = self._clock()
            readings.append(
                EnergyReading(domain=self.domain, at_ns=at_ns, energy_uj=energy_mj * 1000, ceiling_uw=self._ceiling_uw)
            )
            return at_ns
        if self.method == "none":
            return self._clock()
        field = self.method == "average field"
        power_mw = self._average_field_mw() if field else nvml.nvmlDeviceGetPowerUsage(handle)
        at_ns = self._clock()
        readings.append(PowerReading(domain=self.domain, at_ns=at_ns, power_uw=power_mw * 1000))
        return at_ns

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
        nvml, handle, missing = self._nvml, self._handle, self.missing
        contexts: dict[int, int | None] = {}
        if "nvmlDeviceGetComputeRunningProcesses_v3" not in missing:
            for process in nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle):
                contexts[process.pid] = process.usedGpuMemory
        if "nvmlDeviceGetGraphicsRunningProcesses_v3" not in missing:
            for process in nvml.nvmlDeviceGetGraphicsRunningProcesses_v3(handle):
                # A process that computes and draws stands on both lists, with the same memory.
                if contexts.get(process.pid) is None:
                    contexts[process.pid] = process.usedGpuMemory
        return contexts

    def _samples(self) -> list[Sample]:
        """Utilization samples newer than the newest one seen (not than a wall clock: the stamp's clock has no name)."""
        nvml = self._nvml
        if "nvmlDeviceGetProcessUtilization" in self.missing:
            return []
        try:
            answers = nvml.nvmlDeviceGetProcessUtilization(self._handle, self._sm_time.last_seen_us)
        except nvml.NVMLError as error:
            # The binding raises SUCCESS too, where the driver has no samples.
            if error.value in (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_SUCCESS):
                return []
            raise
        return [Sample(answer.pid, answer.timeStamp, answer.smUtil) for answer in answers]
