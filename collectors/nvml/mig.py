"""The MIG devices of one board: which there are, who has a context on each, how busy their SMs were.

Handles die when instances are rebuilt, and may come back with other properties (nvml.h), so the instances are listed
anew each second and whenever one of them fails; between that they are known by UUID, instance ids and size.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from wattribute.agent.core.units import NS_PER_S
from wattribute.collectors.nvml.contexts import COMPUTE, LISTS, add_contexts, contexts_by_instance
from wattribute.collectors.nvml.gpm import Activity
from wattribute.collectors.nvml.library import Nvml, is_over, is_unsupported
from wattribute.collectors.nvml.slices import Instance

RELIST_NS: Final = NS_PER_S

Contexts = dict[int, int | None]


class _MigDevice(NamedTuple):
    uuid: str
    gpu_instance: int
    compute_instance: int
    slices: int
    sms: int
    handle: Any

    @property
    def identity(self) -> tuple[object, ...]:
        """What it is, whatever its handle: another size is another instance."""
        return self[:5]


class Partition:
    """A board in MIG mode, for as long as its handle is good. `missing` collects, by key, what can't be read and why.

    Raises NVMLError where its instances can't be counted, and from any call where GPU or session is over.
    """

    def __init__(self, nvml: Nvml, board: Any, missing: dict[str, str]) -> None:
        self._nvml = nvml
        self._board = board
        self._missing = missing
        self._lacking: set[str] = set()  # lists of processes that MIG handles don't have
        self._devices: list[_MigDevice] = []
        self._listed_ns: int | None = None
        self.most = int(nvml.nvmlDeviceGetMaxMigDeviceCount(board))
        """Slices of the board that can be allocated: the most MIG devices are as many as there are."""
        self.complete = True
        self._activity: Activity | None = None
        activity = Activity(nvml, board)
        if self._ask("GPM", "activity per MIG instance", activity.is_supported, silent=True):
            self._activity = activity

    @property
    def has_activity(self) -> bool:
        """Whether the board tells how busy its instances are."""
        return self._activity is not None

    def read(self, now_ns: int) -> list[Instance]:
        """The instances of now and their processes."""
        if self._listed_ns is None or now_ns - self._listed_ns >= RELIST_NS:
            self._list(now_ns)
        found = self._look()
        if any(contexts is None and self._key(device) not in self._missing for device, contexts in found):
            self._list(now_ns)  # rebuilt since they were listed
            found = self._look(tell=True)
        return [
            Instance(device.uuid, device.gpu_instance, device.slices, device.sms, contexts or {})
            for device, contexts in found
        ]

    def activity_ppm(self, now_ns: int) -> dict[int, int] | None:
        """How busy each GPU instance was, as far as it is known yet; None without GPM.

        To be asked after all else: on some drivers, calls on MIG handles fail for a while after one to GPM.
        """
        if self._activity is None:
            return None
        known: dict[int, int] = {}
        identities: dict[int, list[object]] = {}
        for device in self._devices:
            identities.setdefault(device.gpu_instance, []).append(device.identity)
        self._activity.keep(set(identities))
        for gpu_instance, identity in identities.items():
            try:
                ppm = self._activity.read(gpu_instance, identity, now_ns)
            except self._nvml.NVMLError as error:
                self._raise_if_over(error)
                self._listed_ns = None
                refused = error.value == self._nvml.NVML_ERROR_NO_PERMISSION
                if refused or is_unsupported(self._nvml, error.value):
                    self._activity.close()
                    self._activity = None
                    self._missing["GPM"] = f"activity per MIG instance can't be read: {error}"
                return None
            if ppm is not None:
                known[gpu_instance] = ppm
        return known

    def close(self) -> None:
        """Gives back what NVML allocated, while the session lasts."""
        if self._activity is not None:
            self._activity.close()

    def _list(self, now_ns: int) -> None:
        nvml = self._nvml
        self._devices, self._listed_ns, self.complete = [], now_ns, self.most > 0
        for index in range(self.most):
            try:
                handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(self._board, index)
                attributes = nvml.nvmlDeviceGetAttributes_v2(handle)
                device = _MigDevice(
                    uuid=nvml.nvmlDeviceGetUUID(handle),
                    gpu_instance=nvml.nvmlDeviceGetGpuInstanceId(handle),
                    compute_instance=nvml.nvmlDeviceGetComputeInstanceId(handle),
                    slices=attributes.gpuInstanceSliceCount,
                    sms=attributes.multiprocessorCount,
                    handle=handle,
                )
            except nvml.NVMLError as error:
                self._raise_if_over(error)
                if error.value != nvml.NVML_ERROR_NOT_FOUND:  # which is an index that isn't in use
                    self.complete = False
                    self._missing.setdefault(f"MIG device {index}", f"MIG device {index} can't be looked up: {error}")
                continue
            self._devices.append(device)

    def _look(self, *, tell: bool = False) -> list[tuple[_MigDevice, Contexts | None]]:
        """Who is on each instance; None where that can't be read."""
        found = [(device, self._contexts_on(device, tell=tell)) for device in self._devices]
        if COMPUTE in self._lacking:
            by_board = self._ask(COMPUTE, "the processes of its MIG instances", self._by_board) or {}
            for device, contexts in found:
                if contexts is not None:
                    contexts.update(by_board.get((device.gpu_instance, device.compute_instance), {}))
        return found

    def _contexts_on(self, device: _MigDevice, *, tell: bool) -> Contexts | None:
        contexts: Contexts = {}
        for name in LISTS:
            if name in self._lacking:
                continue
            try:
                add_contexts(contexts, getattr(self._nvml, name)(device.handle))
            except self._nvml.NVMLError as error:
                self._raise_if_over(error)
                if is_unsupported(self._nvml, error.value):
                    self._lacking.add(name)
                    continue
                if tell:
                    self._missing[self._key(device)] = f"the processes of {device.uuid} can't be read: {error}"
                return None
        return contexts

    def _by_board(self) -> dict[tuple[int, int], Contexts]:
        return contexts_by_instance(self._nvml, self._board)

    def _ask(self, key: str, what: str, call: Callable[[], Any], *, silent: bool = False) -> Any:
        """What a call answers; None, and a note of it, where it fails (no note: `silent`, where it isn't supported)."""
        try:
            return call()
        except self._nvml.NVMLError as error:
            self._raise_if_over(error)
            if not (silent and is_unsupported(self._nvml, error.value)):
                self._missing.setdefault(key, f"{what} can't be read: {error}")
            return None

    def _key(self, device: _MigDevice) -> str:
        return f"processes of {device.uuid}"

    def _raise_if_over(self, error: Any) -> None:
        if is_over(self._nvml, error.value):
            raise error
