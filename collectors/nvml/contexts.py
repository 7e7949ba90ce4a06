"""Which processes hold a context on a GPU or a MIG device, by NVML's two lists: those that compute and those that draw.

A context is no activity. Where a list isn't supported the other one counts alone.
"""

from collections.abc import Iterable
from typing import Any, Final

from wattribute.collectors.nvml.library import Nvml

COMPUTE: Final = "nvmlDeviceGetComputeRunningProcesses_v3"
GRAPHICS: Final = "nvmlDeviceGetGraphicsRunningProcesses_v3"
LISTS: Final = (COMPUTE, GRAPHICS)


def add_contexts(contexts: dict[int, int | None], processes: Iterable[Any]) -> None:
    """Adds what one list says: device memory in bytes by pid (None: not known)."""
    for process in processes:
        # A process that computes and draws stands on both lists, with the same memory.
        if contexts.get(process.pid) is None:
            contexts[process.pid] = process.usedGpuMemory


def contexts_by_instance(nvml: Nvml, board: Any) -> dict[tuple[int, int], dict[int, int | None]]:
    """Who computes on a board's MIG devices, from its own list, by (GPU instance, compute instance); NVMLError."""
    found: dict[tuple[int, int], dict[int, int | None]] = {}
    for process in nvml.nvmlDeviceGetComputeRunningProcesses_v3(board):
        add_contexts(found.setdefault((process.gpuInstanceId, process.computeInstanceId), {}), [process])
    return found
