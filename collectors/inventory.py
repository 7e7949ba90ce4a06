"""What this machine is made of, as Linux tells without privileges: CPUs, memory, disks, the maker's product name.

Read below `proc` and `sys` roots; what can't be read is empty or 0, never a guess.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SECTOR_BYTES: Final = 512  # /sys/block/*/size counts these, whatever the disk's own are

_VIRTUAL_MACHINES: Final = re.compile(
    r"\b(QEMU|KVM|VMware|VirtualBox|Virtual Machine|HVM domU|Xen|Bochs|Parallels|RHEV|oVirt|OpenStack|Standard PC"
    r"|Google Compute Engine|Bhyve|Firecracker|Droplet)\b",
    re.IGNORECASE,
)
"""In a product's or maker's name (sys_vendor, product_name)."""

_NOT_OF_THIS_MACHINE: Final = re.compile(
    r"QEMU|VMware|Virtual (disk|machine)|Msft|VBOX|PersistentDisk|Elastic Block Store|iSCSI|LIO-ORG", re.IGNORECASE
)
"""In a disk's maker's or model's name: a hypervisor's disk, or one across the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk in the machine; `rotational`: a hard disk."""

    name: str
    model: str
    size_bytes: int
    rotational: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """`sockets` is 0 where it isn't known. In a `virtual` machine all of it is what the hypervisor chose to show.

    `server` is the product's name as its maker wrote it into the firmware, "" where none is told.
    """

    cpu_model: str = ""
    sockets: int = 0
    memory_bytes: int = 0
    disks: tuple[Disk, ...] = ()
    server: str = ""
    virtual: bool = False


def take(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Inventory:
    """What can be read now. Raises nothing."""
    cpu_model, sockets, hypervisor = _cpus(proc, sys)
    firmware = sys / "class/dmi/id"
    server = _line(firmware / "product_name")
    return Inventory(
        cpu_model=cpu_model,
        sockets=sockets,
        memory_bytes=_memory_bytes(proc, sys),
        disks=tuple(_disks(sys / "block")),
        server="" if _is_placeholder(server) else server,
        virtual=hypervisor or bool(_VIRTUAL_MACHINES.search(f"{_line(firmware / 'sys_vendor')} {server}")),
    )


def _cpus(proc: Path, sys: Path) -> tuple[str, int, bool]:
    """(model, sockets, whether a hypervisor shows itself). ARM's cpuinfo has neither model nor sockets."""
    fields: dict[str, set[str]] = {}
    for line in _text(proc / "cpuinfo").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), set()).add(value.strip())
    model = min(fields.get("model name", {""}))
    hypervisor = any("hypervisor" in flags.split() for flags in fields.get("flags", ()))
    packages = fields.get("physical id") or {
        _line(path / "topology/physical_package_id") for path in sys.glob("devices/system/cpu/cpu[0-9]*")
    }
    return model, len(packages - {"", "-1"}), hypervisor


def _memory_bytes(proc: Path, sys: Path) -> int:
    """What is plugged in, by the kernel's blocks of memory; else what it has left for use (some percent less)."""
    folder = sys / "devices/system/memory"
    try:
        each_bytes = int(_line(folder / "block_size_bytes"), 16)
    except ValueError:
        each_bytes = 0
    blocks = sum(1 for _ in folder.glob("memory[0-9]*")) if each_bytes else 0
    if blocks:
        return blocks * each_bytes
    total = re.search(r"^MemTotal:\s+(\d+) kB$", _text(proc / "meminfo"), re.MULTILINE)
    return int(total[1]) * 1024 if total else 0


def _disks(folder: Path) -> Iterator[Disk]:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return
    for name in names:
        path = folder / name
        device = path / "device"
        # What is made of others (dm, md, loop, zram) has no device; a multipath NVMe's single paths are hidden.
        if name.startswith(("sr", "fd", "vd", "xvd")) or not device.exists() or _line(path / "hidden") == "1":
            continue
        model = " ".join(f"{_line(device / 'vendor')} {_line(device / 'model')}".split()).removeprefix("ATA ")
        sectors = _line(path / "size")
        transport = _line(device / "transport")  # an NVMe's; another than PCIe is across the network
        if not sectors.isdecimal() or sectors == "0" or _line(path / "removable") == "1":
            continue
        if transport not in ("", "pcie") or _NOT_OF_THIS_MACHINE.search(model):
            continue
        yield Disk(
            name=name,
            model=model,
            size_bytes=int(sectors) * _SECTOR_BYTES,
            rotational=_line(path / "queue/rotational") == "1",
        )


def _is_placeholder(name: str) -> bool:
    return name.casefold() in (
        "",
        "none",
        "default string",
        "to be filled by o.e.m.",
        "system product name",
        "not specified",
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _line(path: Path) -> str:
    """A file's one line, without what firmware pads or breaks it with."""
    return "".join(filter(str.isprintable, _text(path))).strip()
