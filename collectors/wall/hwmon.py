"""Power or energy of the whole node by a chip of the kernel's hwmon class, in microwatts or microjoules.

Which chips those are is known by name: most that have a power measure a CPU, a GPU or one rail. The file stays open.
Sources: Linux Documentation/hwmon/sysfs-interface.rst, acpi_power_meter.rst, ibmpowernv.rst.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Domain, EnergyReading, Finding, PowerReading

DOMAIN = Domain(kind="psys", id="hwmon")
CEILING_UW = 100_000_000_000  # 100 kW: more than any node; tells a reset from use, and garbage from power

NODE_CHIPS: Mapping[str, str] = {"power_meter": "", "ibmpowernv": "System"}
"""Chips that measure the node, and the label of that figure where a chip has several."""

OF_PARTS = (
    "amd_energy",
    "amdgpu",
    "coretemp",
    "fam15h_power",
    "i915",
    "k10temp",
    "nouveau",
    "radeon",
    "xe",
    "zenpower",
)
_OF_A_PART = re.compile(r"socket|module|cpu|gpu|sysio|dimm|dram|rail", re.IGNORECASE)
_FIGURES = ("energy{}_input", "power{}_average", "power{}_input")
_MOST_FIGURES = 32
_LINE_BYTES = 64
LOAD = "sudo modprobe acpi_power_meter"
OTHER = 'collectors.wall = "redfish" or "ipmi" asks the BMC'


@dataclass(frozen=True, slots=True)
class Meter:
    """One chip's figure of the node, and where it is; `why`: why it isn't one of the node, "" where it is."""

    chip: str
    device: str
    path: str
    why: str = ""

    @property
    def counts(self) -> bool:
        """Whether it tells energy; else power."""
        return "/energy" in self.path


class HwmonWall:
    """Reads the one chip that measures the node; `chip` names it where several do, or none is known to.

    Raises SensorUnavailable where there is none, or more than one.
    """

    name = "wall"

    def __init__(self, sys: Path, clock: Callable[[], int], chip: str = "") -> None:
        self._sys = sys
        self._clock = clock
        self._chip = chip
        self.meter = the_meter(sys, chip)
        self._fd = _open(self.meter.path)

    def read(self) -> list[EnergyReading | PowerReading]:
        """One reading. Raises SensorUnavailable, with the fix."""
        try:
            value = self._value()
        except SensorUnavailable:
            self._look_again()  # a driver that was loaded anew may have another number
            value = self._value()
        at_ns = self._clock()
        if self.meter.counts:
            return [EnergyReading(domain=DOMAIN, at_ns=at_ns, energy_uj=value, ceiling_uw=CEILING_UW)]
        return [PowerReading(domain=DOMAIN, at_ns=at_ns, power_uw=value)]

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def finding(self) -> Finding:
        """What `doctor` says of it."""
        meter = self.meter
        try:
            value = self._value()
        except SensorUnavailable as error:
            return Finding(source=self.name, path=meter.path, ok=False, why=error.cause, fix=error.fix)
        return Finding(
            source=self.name,
            path=meter.path,
            ok=True,
            why=f"the whole node, by {meter.chip} ({meter.device}): readable",
            resolution=_resolution(meter),
            value=f"{value} uJ" if meter.counts else f"{value / 1e6:g} W",
            quality="measured" if meter.counts else "integrated",
        )

    def _look_again(self) -> None:
        meter = the_meter(self._sys, self._chip)
        fd = _open(meter.path)
        self.close()
        self.meter, self._fd = meter, fd

    def _value(self) -> int:
        path = self.meter.path
        if self._fd < 0:
            raise SensorUnavailable(f"{path} is closed")
        try:
            line = os.pread(self._fd, _LINE_BYTES, 0)
        except OSError as error:
            raise _unavailable(path, error) from error
        if not line.strip().isdigit():
            raise SensorUnavailable(f"{path} holds {line[:24]!r}, no number", LOAD)
        value = int(line)
        if not self.meter.counts and not 0 < value <= CEILING_UW:
            raise SensorUnavailable(f"{path} tells {value} uW, which no node draws", OTHER)
        return value


def the_meter(sys: Path, chip: str = "") -> Meter:
    """The chip that measures the node. Raises SensorUnavailable where it isn't one and no more."""
    found = meters(sys, chip)
    good = [meter for meter in found if not meter.why]
    if len(good) == 1:
        return good[0]
    root = sys / "class" / "hwmon"
    if good:
        names = ", ".join(meter.device for meter in good)
        raise SensorUnavailable(
            f"{len(good)} chips under {root} seem to measure the node: {names}",
            f'name the one at the power supply: [wall] chip = "{good[0].device}"',
        )
    if chip:
        why = f": {found[0].why}" if found else ""
        raise SensorUnavailable(f"no chip under {root} is {chip!r} and measures the node{why}", OTHER, absent=True)
    told = "; ".join(f"{meter.device} {meter.why}" for meter in found[:4])
    raise SensorUnavailable(
        f"no chip under {root} is known to measure the whole node{f' ({told})' if told else ''}",
        f"{LOAD}; or {OTHER}",
        absent=True,
    )


def meters(sys: Path, chip: str = "") -> list[Meter]:
    """Each chip that tells power or energy and is known by name, or is named, in the kernel's order."""
    found = []
    try:
        folders = sorted((sys / "class" / "hwmon").iterdir(), key=lambda path: (len(path.name), path.name))
    except OSError:
        return []
    for folder in folders:
        device = (folder / "device").resolve().name if (folder / "device").exists() else folder.name
        name = _text(folder / "name") or _text(folder / "device" / "name")
        named = bool(chip) and chip in (name, device)
        if not named and (chip or name not in NODE_CHIPS):
            continue
        place, number = _figure(folder, NODE_CHIPS.get(name, ""))
        if not place:
            continue
        path = f"{place}"
        why = ""
        # Grace's chips nest: Module Power Socket 0 holds Grace Power Socket 0, which holds CPU Power Socket 0.
        told = _text(Path(path).parent / f"power{number}_oem_info")
        if name in OF_PARTS:
            why = f"({name}) measures a part of the node"
        elif told and _OF_A_PART.search(told) and not named:
            why = f"measures a part of the node ({told})"
        found.append(Meter(name, device, path, why))
    return found


def _figure(folder: Path, label: str) -> tuple[str, int]:
    """The best figure's file (energy, average power, power), and its number: the one so labelled, else the first."""
    for place in (folder, folder / "device"):
        for number in range(1, _MOST_FIGURES + 1):
            if label and label not in (_text(place / f"{kind}{number}_label") for kind in ("energy", "power")):
                continue
            for figure in _FIGURES:
                path = place / figure.format(number)
                if path.exists():
                    return str(path), number
    return "", 0


def _resolution(meter: Meter) -> str:
    interval = _text(Path(re.sub(r"_average$", "_average_interval", meter.path)))
    return f"averaged over {int(interval) / 1000:g} s" if meter.path.endswith("_average") and interval.isdigit() else ""


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""


def _open(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unavailable(path, error) from error
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise SensorUnavailable(f"{path} is no regular file", "wattribute agent --sys /sys")


def _unavailable(path: str, error: OSError) -> SensorUnavailable:
    cause = f"{path}: {error.strerror or error}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return SensorUnavailable(cause, "start the agent as root: it keeps what it opened (agent.user)")
    return SensorUnavailable(cause, LOAD)


__all__ = ["HwmonWall", "Meter", "meters", "the_meter"]
