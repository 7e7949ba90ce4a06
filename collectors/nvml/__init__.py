"""NVIDIA GPUs through NVML: energy per board and SM time per process. Importing this doesn't import pynvml."""

from wattribute.collectors.nvml.collector import NvmlCollector
from wattribute.collectors.nvml.doctor import probe

__all__ = ["NvmlCollector", "probe"]
