"""CPU, DRAM and platform energy from the kernel's powercap tree (RAPL): cumulative integer microjoules.

Descriptors are kept and read with pread: no open and no scan per read, and an agent that opened them as root may drop
its rights. Sources: Linux Documentation/power/powercap/powercap.rst, drivers/powercap/intel_rapl_common.c.
"""

from wattribute.collectors.rapl.collector import RaplCollector, probe

__all__ = ["RaplCollector", "probe"]
