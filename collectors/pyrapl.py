"""CPU and DRAM energy through pyRAPL, a backend by choice: cumulative microjoules of the packages pyRAPL finds.

What it can't do is listed in docs/sensors-rapl.md; above all it knows no wrap range, so that each wrap is a gap.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Domain, DomainKind, EnergyReading, Reading

CEILING_UW: dict[DomainKind, int] = {"cpu": 1_000_000_000, "dram": 400_000_000}
"""The most that a package and its memory can plausibly draw: pyRAPL doesn't read power limits."""

POWERCAP = 'set [collectors] rapl = "powercap", which says what is wrong'


class PyRaplCollector:
    """Reads /sys/class/powercap by pyRAPL's Sensor; it takes no other root.

    Raises SensorUnavailable at once where the extra isn't installed.
    """

    name = "rapl"

    def __init__(self, clock: Callable[[], int]) -> None:
        # pyRAPL 0.2.3.1 warns when it is compiled (escapes) and when it opens files that it never closes.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                import pyRAPL
            except ImportError as error:
                raise SensorUnavailable(f"pyRAPL: {error}", "pip install 'wattribute[pyrapl]'") from error
        self._library: Any = pyRAPL
        self._clock = clock
        self._sensor: Any = None
        self._closed = False

    def read(self) -> list[Reading]:
        """One EnergyReading per package and its DRAM, in microjoules, all with the time at which the last was read.

        Raises SensorUnavailable if a single counter fails: pyRAPL gives all or nothing.
        """
        if self._closed:
            raise SensorUnavailable("the rapl collector is closed")
        try:
            if self._sensor is None:
                self._sensor = self._open()
            values: list[float] = self._sensor.energy()
            at_ns = self._clock()
        except (OSError, ValueError, LookupError) as error:  # a file, float() of what is in it, a socket numbered -1
            self._release()
            raise SensorUnavailable(f"pyRAPL: {error}", POWERCAP) from error
        except self._library.PyRAPLException as error:
            self._release()
            why = "the packages under /sys/class/powercap aren't the machine's sockets, or there are none"
            raise SensorUnavailable(f"pyRAPL: {type(error).__name__}: {why}", POWERCAP) from error
        readings: list[Reading] = [
            reading for index, value in enumerate(values) for reading in _reading(index, value, at_ns)
        ]
        if not readings:
            self._release()
            raise SensorUnavailable("pyRAPL: no counter gives a number of microjoules", POWERCAP)
        return readings

    def close(self) -> None:
        """Close the files that pyRAPL leaves open."""
        self._closed = True
        self._release()

    def _open(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._library.Sensor()

    def _release(self) -> None:
        sensor, self._sensor = self._sensor, None
        if sensor is None:
            return
        for device in sensor._device_api.values():  # pyRAPL has no close()
            for file in device._sys_files:
                with suppress(OSError):
                    file.close()


def _reading(index: int, value: float, at_ns: int) -> list[EnergyReading]:
    """Place 2n of pyRAPL's list is socket n's package, 2n + 1 its DRAM; -1 is none. Whole below 2**53 uJ."""
    if not 0 <= value < 2**53:  # also: not NaN
        return []
    socket, is_dram = divmod(index, 2)
    kind: DomainKind = "dram" if is_dram else "cpu"
    domain = Domain(kind=kind, id=f"package-{socket}" + ("-dram" if is_dram else ""))
    return [EnergyReading(domain=domain, at_ns=at_ns, energy_uj=int(value), ceiling_uw=CEILING_UW[kind])]
