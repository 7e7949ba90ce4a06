"""All GPUs of the node in one NVML session, which outlives lost GPUs and driver reloads.

What fails is cut as small as it is: a call that a GPU lacks, a GPU, the session. A lost GPU is retried with back-off
while the others go on; a session that the driver ended is opened again, with new handles by UUID. One session is
held all the time, because without persistence mode the last client's exit powers the GPU's state down.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Domain, Fault, ProcessId, Reading
from wattribute.agent.core.units import NS_PER_S
from wattribute.collectors.nvml.gpu import Gpu
from wattribute.collectors.nvml.library import LIBRARY, load, why
from wattribute.collectors.nvml.processes import Processes, command_in, in_nested_namespace

RELIST_NS: Final = 60 * NS_PER_S
"""How often new GPUs are looked for."""

_FIRST_DELAY_NS: Final = NS_PER_S
_LAST_DELAY_NS: Final = 60 * NS_PER_S


@dataclass(slots=True)
class _Trouble:
    """A GPU that failed: when to try again, and what was last said of it."""

    retry_ns: int
    delay_ns: int
    code: int


class NvmlCollector:
    """Energy, processes and SM time of every NVIDIA GPU, keyed by UUID (Collector).

    Constructing it loads the driver's library and pynvml but talks to no driver; the first `read` does, and each may
    block for as long as the driver hangs. Not thread-safe: one thread reads, releases and closes.

    `clock` gives CLOCK_BOOTTIME in ns, `identify` the process behind a pid of our pid namespace, or None. `library`
    is a soname or a path, for drivers outside the loader's search path. `command_of` names a process (by default what
    `proc` says) and `nested` tells whether we live in a container's own pid namespace (by default, `proc` again).
    Raises SensorUnavailable without library.
    """

    name = "nvml"

    def __init__(
        self,
        clock: Callable[[], int],
        identify: Callable[[int], ProcessId | None],
        *,
        library: str = LIBRARY,
        proc: Path = Path("/proc"),
        command_of: Callable[[int], str] | None = None,
        nested: bool | None = None,
    ) -> None:
        self._nvml = load(library)
        self._clock = clock
        self._processes = Processes(
            identify,
            command_of or command_in(proc),
            nested=in_nested_namespace(proc) if nested is None else nested,
        )
        self._methods: dict[str, str] = {}
        self._gpus: dict[str, Gpu] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._refused: set[int] = set()  # indices that can't even be looked up
        self._taken: set[str] = set()  # UUIDs of GPUs that left while nobody had asked us to let go
        self._given: set[str] = set()  # UUIDs of those that somebody else had until now
        self._devices: dict[str, bool] = {}
        self._indices: dict[int, str] = {}
        self._names: dict[str, str] = {}
        self._listed_ns: int | None = None  # None: no session

    def indices(self) -> Mapping[int, str]:
        """UUID by the index that NVML gives this time: what other tools' files name a GPU by. From any thread."""
        return self._indices

    def names(self) -> Mapping[str, str]:
        """Product name by UUID, "" where the driver doesn't tell. From any thread."""
        return self._names

    def devices(self) -> Mapping[str, bool]:
        """Each GPU that there is or was, by UUID, and whether it could be read last time. From any thread."""
        return self._devices

    def read(self) -> list[Reading]:
        """What all GPUs read now, a Fault for each that can't be; SensorUnavailable where there is no driver or GPU."""
        had_session = self._listed_ns is not None
        try:
            return self._read()
        except self._nvml.NVMLError as error:
            self._end_session()
            if not had_session or error.value == self._nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
                raise SensorUnavailable(*why(self._nvml, error.value)) from None
        try:  # the driver ended our session: once more with a new one
            return self._read()
        except self._nvml.NVMLError as error:
            self._end_session()
            raise SensorUnavailable(*why(self._nvml, error.value)) from None

    def methods(self) -> dict[str, str]:
        """How each board's energy was last read and split, in words, by UUID. May be called by any thread."""
        return self._methods

    def release(self) -> None:
        """Lets go of NVML, so that GPUs can be reset, repartitioned or unbound. The next `read` takes it up again."""
        self._end_session()
        self._troubles.clear()  # what was the matter may be mended
        self._taken.clear()
        self._given = set(self._gpus)
        for gpu in self._gpus.values():
            gpu.give_up()

    def close(self) -> None:
        """Gives the NVML session back; may be called twice."""
        self._end_session()

    def _end_session(self) -> None:
        if self._listed_ns is None:
            return
        self._listed_ns = None
        for gpu in self._gpus.values():
            gpu.drop_handle(driver_changed=True)
        with suppress(self._nvml.NVMLError):  # a driver that is gone has no session to end
            self._nvml.nvmlShutdown()

    def _read(self) -> list[Reading]:
        now_ns = self._clock()
        if self._listed_ns is None:
            self._nvml.nvmlInit()
            self._listed_ns = now_ns
            self._refused.clear()
            readings = self._list(now_ns)
        elif now_ns - self._listed_ns >= RELIST_NS:
            self._listed_ns = now_ns
            readings = self._list(now_ns)
        else:
            readings = []
        methods: dict[str, str] = {}
        asked = unknown = 0
        self._processes.begin_read()
        for uuid, gpu in list(self._gpus.items()):
            trouble = self._troubles.get(uuid)
            if trouble is not None and now_ns < trouble.retry_ns:
                continue
            asked += 1
            try:
                readings += gpu.read()
            except self._nvml.NVMLError as error:
                self._raise_if_session_over(error)
                if error.value == self._nvml.NVML_ERROR_NOT_FOUND:
                    readings.append(self._fault(uuid, "the GPU was taken out of the node", "", now_ns))
                    gpu.drop_handle(driver_changed=True)
                    del self._gpus[uuid]
                    self._troubles.pop(uuid, None)
                    if uuid not in self._given:
                        self._taken.add(uuid)
                    continue
                unknown += error.value == self._nvml.NVML_ERROR_UNKNOWN
                readings += self._set_aside(gpu, error.value, now_ns)
            else:
                self._troubles.pop(uuid, None)
                methods[uuid] = gpu.how
        if asked and unknown == asked:
            # One GPU may answer UNKNOWN by itself; if all do, it is the driver.
            self._troubles.clear()
            raise self._nvml.NVMLError(self._nvml.NVML_ERROR_UNKNOWN)
        self._given.clear()
        # These are replaced, never changed: others may be reading them.
        unread = [*self._taken, *(_unidentified(index) for index in self._refused)]
        self._devices = {uuid: uuid not in self._troubles for uuid in self._gpus} | dict.fromkeys(unread, False)
        methods = {uuid: how for uuid, how in {**self._methods, **methods}.items() if uuid in self._gpus}
        if methods != self._methods:
            self._methods = methods
        return readings

    def _list(self, now_ns: int) -> list[Reading]:
        """Finds the GPUs there are; a Fault, once, for each that can't be looked up."""
        nvml = self._nvml
        count = nvml.nvmlDeviceGetCount()
        if count == 0:
            self._end_session()
            raise SensorUnavailable("the NVIDIA driver shows no GPU here", "in a container: docker run --gpus all")
        faults: list[Reading] = []
        indices: dict[int, str] = {}
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = nvml.nvmlDeviceGetUUID(handle)
            except nvml.NVMLError as error:
                self._raise_if_session_over(error)
                if index not in self._refused and not self._troubles:  # a known GPU in trouble was told of already
                    self._refused.add(index)
                    cause, fix = why(nvml, error.value)
                    # There is no hardware identity to be had; no reading ever carries this one.
                    faults.append(self._fault(_unidentified(index), cause, fix, now_ns))
                continue
            self._refused.discard(index)
            self._taken.discard(uuid)
            indices[index] = uuid
            if uuid not in self._gpus:
                self._gpus[uuid] = Gpu(nvml, uuid, self._clock, self._processes)
                name = ""
                with suppress(nvml.NVMLError):  # it says what was made, and nothing that is measured needs it
                    name = nvml.nvmlDeviceGetName(handle)
                self._names = {**self._names, uuid: name}  # replaced, never changed: others may be reading it
        self._indices = indices
        return faults

    def _raise_if_session_over(self, error: Exception) -> None:
        nvml = self._nvml
        over = (
            nvml.NVML_ERROR_UNINITIALIZED,
            nvml.NVML_ERROR_DRIVER_NOT_LOADED,
            nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        )
        if getattr(error, "value", None) in over:
            raise error

    def _set_aside(self, gpu: Gpu, code: int, now_ns: int) -> list[Reading]:
        """Notes a GPU's failure, to be retried later and later; a refusal is told once, a loss at each try."""
        gpu.drop_handle(driver_changed=False)
        before = self._troubles.get(gpu.domain.id)
        delay_ns = _FIRST_DELAY_NS if before is None else min(2 * before.delay_ns, _LAST_DELAY_NS)
        self._troubles[gpu.domain.id] = _Trouble(now_ns + delay_ns, delay_ns, code)
        if before is not None and before.code == code == self._nvml.NVML_ERROR_NO_PERMISSION:
            return []
        cause, fix = why(self._nvml, code)
        return [self._fault(gpu.domain.id, cause, fix, now_ns)]

    def _fault(self, gpu_id: str, cause: str, fix: str, now_ns: int) -> Fault:
        return Fault(domain=Domain(kind="gpu", id=gpu_id), at_ns=now_ns, cause=cause, fix=fix)


def _unidentified(index: int) -> str:
    """Stands for a GPU that can't be looked up, by its index of this session."""
    return f"unidentified-{index}"
