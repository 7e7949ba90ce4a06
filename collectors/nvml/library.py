"""Loads the driver's library and its official binding, and says what NVML's error codes mean for the user.

The only file that imports pynvml (nvidia-ml-py). Codes and their meaning: nvml.h, nvmlReturn_t.
"""

import ctypes
import sys
from typing import Any, Final, TypeAlias

from wattribute.agent.core.errors import SensorUnavailable

Nvml: TypeAlias = Any
"""The pynvml module, which has no type annotations."""

LIBRARY: Final = "libnvidia-ml.so.1"

_NO_DRIVER_FIX: Final = "sudo modprobe nvidia"
_NO_LIBRARY_FIX: Final = (
    "install the NVIDIA driver; in a container: docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=utility"
)
_PERMISSION_FIX: Final = 'sudo usermod -aG "$(stat -c %G /dev/nvidiactl)" "$(id -un)", then log in again'


def load(library: str = LIBRARY) -> Nvml:
    """Imports pynvml for a driver library given by soname or path; SensorUnavailable where one of them is missing.

    The library is tried first, because that costs microseconds where there is no GPU and the import 18 ms. Loaded
    by its path, it also answers pynvml's own look-up, which goes by the same soname.
    """
    if sys.platform == "linux":
        try:
            ctypes.CDLL(library)
        except OSError as error:
            raise SensorUnavailable(f"no NVIDIA driver library: {error}", _NO_LIBRARY_FIX) from None
    try:
        import pynvml
    except ImportError as error:
        raise SensorUnavailable(f"the NVML binding can't be imported: {error}", "pip install nvidia-ml-py") from None
    return official(pynvml)


def official(module: Nvml) -> Nvml:
    """The module as it came, or SensorUnavailable if it is the unofficial `pynvml` distribution.

    That one is a package of the same name with an older set of calls; NVIDIA's is a single file.
    """
    if hasattr(module, "__path__"):
        raise SensorUnavailable(
            f"the module pynvml at {module.__file__} is the unofficial distribution, not nvidia-ml-py",
            "pip uninstall -y pynvml && pip install --force-reinstall nvidia-ml-py",
        )
    return module


def is_over(nvml: Nvml, code: int) -> bool:
    """Whether a code ends the GPU or the session, so that asking on is of no use; others are one call's own."""
    return code in (
        nvml.NVML_ERROR_UNINITIALIZED,
        nvml.NVML_ERROR_DRIVER_NOT_LOADED,
        nvml.NVML_ERROR_GPU_IS_LOST,
        nvml.NVML_ERROR_RESET_REQUIRED,
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    )


def is_unsupported(nvml: Nvml, code: int) -> bool:
    """Whether a code says that GPU or driver doesn't have a call."""
    return code in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND)


def why(nvml: Nvml, code: int) -> tuple[str, str]:
    """What an error code means here, and the one step that mends it (empty where there is none but to wait)."""
    known = {
        nvml.NVML_ERROR_NO_PERMISSION: ("no permission to open the GPU's device file", _PERMISSION_FIX),
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: ("the NVIDIA driver isn't loaded", _NO_DRIVER_FIX),
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: ("no NVIDIA driver library", _NO_LIBRARY_FIX),
        nvml.NVML_ERROR_GPU_IS_LOST: ("the GPU fell off the bus", "sudo nvidia-smi --gpu-reset, or reboot the node"),
        nvml.NVML_ERROR_RESET_REQUIRED: ("the GPU needs a reset", "sudo nvidia-smi --gpu-reset"),
        nvml.NVML_ERROR_OPERATING_SYSTEM: (
            "the operating system blocks access to the GPU (in a container: its device rules were rewritten)",
            "restart the container",
        ),
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
            "the NVIDIA driver was upgraded while its old library is loaded here",
            "restart the agent",
        ),
        nvml.NVML_ERROR_UNKNOWN: (
            "the NVIDIA driver answers an unknown error (in a container: its device rules were rewritten)",
            "nvidia-smi must work in the same place; restart the container if it does on the host alone",
        ),
    }
    # NVMLError words the rest; beyond its own list it asks the library.
    return known.get(code) or (f"NVML error {code}: {nvml.NVMLError(code)}", "")
