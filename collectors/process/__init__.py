"""CPU time of process trees on Linux, by the kernel's per-process CPU clocks, in nanoseconds."""

from wattribute.collectors.process.collector import ProcessCollector

__all__ = ["ProcessCollector"]
