"""The zones of a powercap tree: where they are, what they measure, and why there are none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Domain, DomainKind
from wattribute.collectors.rapl.files import LOAD, RELOAD, read_text

UNMASK = "docker run -v /sys:/host/sys:ro ... wattribute agent --sys /host/sys"

_ENTRY = re.compile(r"intel-rapl(-[a-z]+)?(:\d+)*")
_PACKAGE = re.compile(r"package(-\w+)*", re.ASCII)  # package-0, package-0-die-1
_PSYS = re.compile(r"psys(-\d+)?", re.ASCII)  # one per package where there are several


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone as the tree shows it; `domain` is None for one that isn't counted, and `why` says so."""

    key: str  # the kernel's name, unique but no identity: intel-rapl:0:1
    directory: str
    name: str
    domain: Domain | None = None
    why: str = ""
    fix: str = ""

    @property
    def path(self) -> str:
        return f"{self.directory}/energy_uj"

    @property
    def control(self) -> str:
        return self.key.partition(":")[0]


def zones_below(sys: Path, ids: dict[tuple[str, str], str]) -> list[Zone]:
    """All zones in the kernel's order, intel-rapl before intel-rapl-mmio; `ids` remembers what each was called."""
    zones: list[Zone] = []
    packages: dict[str, str] = {}
    taken: set[tuple[str, str]] = set()
    for key, directory in sorted(_directories(sys).items(), key=lambda item: _order(item[0])):
        try:
            name = read_text(f"{directory}/name")
        except SensorUnavailable as error:
            zones.append(Zone(key, directory, "", why=f"its name can't be read: {error.cause}", fix=error.fix))
            continue
        control, _, numbers = key.partition(":")
        parent = key.rpartition(":")[0]
        kind, base = _domain(name, packages.get(parent))
        if kind is None:
            zones.append(Zone(key, directory, name, why=f"{name}: not counted, {base}"))
            continue
        domain_id = ids.get((key, name), base)
        if (control, domain_id) in taken:  # namesakes, as where dies aren't told apart
            domain_id = f"{base}-zone-{numbers.replace(':', '-')}"
        taken.add((control, domain_id))
        ids[key, name] = domain_id
        if kind == "cpu":
            packages[key] = domain_id
        zones.append(Zone(key, directory, name, Domain(kind=kind, id=domain_id)))
    return zones


def _domain(name: str, package_id: str | None) -> tuple[DomainKind | None, str]:
    """A zone's kind and identity by its name; without a kind, why it isn't counted."""
    if _PACKAGE.fullmatch(name):
        return "cpu", name
    if name == "dram":
        return "dram", f"{package_id}-dram" if package_id else "dram"
    if _PSYS.fullmatch(name):
        return "psys", name
    return None, "it is part of its package" if name in ("core", "uncore") else "its kind isn't known"


def entries(directory: str) -> list[str]:
    """Names in a directory, sorted; none where it can't be listed."""
    try:
        return sorted(path.name for path in Path(directory).iterdir())
    except OSError:
        return []


def _directories(sys: Path) -> dict[str, str]:
    """Zone directories by key, through the class's flat links or down nested directories, whichever is met first."""
    found: dict[str, str] = {}
    pending = [str(sys / "class" / "powercap")]
    for directory in pending:
        for entry in entries(directory):
            if entry not in found and _ENTRY.fullmatch(entry):
                found[entry] = f"{directory}/{entry}"
                pending.append(found[entry])
    return {key: directory for key, directory in found.items() if ":" in key}


def _order(key: str) -> tuple[bool, str, list[int]]:
    control, *numbers = key.split(":")
    return control != "intel-rapl", control, [int(number) for number in numbers]


def cpu_here(sys: Path) -> str:
    """What runs here, by the kernel's CPU alias: intel, amd, hygon, virtual, other; empty where it doesn't say."""
    try:
        alias = read_text(str(sys / "devices" / "system" / "cpu" / "modalias"))
    except SensorUnavailable:
        return ""
    _, _, features = alias.partition(":feature:")
    if "009F" in features.split(","):  # X86_FEATURE_HYPERVISOR, word 4 bit 31
        return "virtual"
    vendor = re.search(r"type:x86,ven(\w{4})", alias)
    return {"0000": "intel", "0002": "amd", "0009": "hygon"}.get(vendor[1], "other") if vendor else "other"


def no_zone(sys: Path, zones: Sequence[Zone]) -> SensorUnavailable:
    """Why there is nothing to count, and what mends it."""
    root = sys / "class" / "powercap"
    nameless = [zone for zone in zones if not zone.name]
    if nameless:
        # Container runtimes mask devices/virtual/powercap, where the links lead (GHSA-jq35-85cj-fj4p).
        return SensorUnavailable(f"{nameless[0].directory} is listed but {nameless[0].why}; a masked tree?", UNMASK)
    if zones:
        return SensorUnavailable(f"{root} has no package, dram or psys zone", RELOAD, absent=True)
    cpu = cpu_here(sys)
    if cpu == "virtual":
        fix = "run the agent on the host; in this machine CPU energy is modelled"
        return SensorUnavailable(
            f"no RAPL zone under {root}: the hypervisor hides RAPL from a virtual machine", fix, absent=True
        )
    if cpu == "other":
        fix = 'set [collectors] rapl = "off"'
        return SensorUnavailable(f"no RAPL zone under {root}: this CPU has no RAPL", fix, absent=True)
    return SensorUnavailable(f"no RAPL zone under {root}", LOAD, absent=True)
