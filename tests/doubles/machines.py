"""Machines as /proc and /sys show them: real directories with real links, laid down below a test's own folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

GIB = 2**30


class Roots(NamedTuple):
    """Where a machine's trees are."""

    proc: Path
    sys: Path


def cpuinfo(model: str, sockets: int, *, hypervisor: bool = False) -> str:
    """x86's, with two threads a socket."""
    flags = "fpu vme hypervisor" if hypervisor else "fpu vme"
    return "\n".join(
        f"processor\t: {2 * socket + thread}\nmodel name\t: {model}\nphysical id\t: {socket}\nflags\t\t: {flags}\n"
        for socket in range(sockets)
        for thread in range(2)
    )


def lay_down(
    folder: Path,
    *,
    cpus: str = "",
    memory_blocks: int = 0,
    mem_total_kb: int = 0,
    dmi: Mapping[str, str] | None = None,
    disks: Mapping[str, Mapping[str, str]] | None = None,
) -> Roots:
    """`memory_blocks` are of 2 GiB. A disk's files are by path below /sys/block/NAME; one of device/ makes it real."""
    roots = Roots(folder / "proc", folder / "sys")
    files: dict[Path, str] = {}
    if cpus:
        files[roots.proc / "cpuinfo"] = cpus
    if mem_total_kb:
        files[roots.proc / "meminfo"] = f"MemTotal:       {mem_total_kb} kB\nMemFree:  1 kB\n"
    memory = roots.sys / "devices/system/memory"
    if memory_blocks:
        files[memory / "block_size_bytes"] = f"{2 * GIB:x}\n"
        files.update({memory / f"memory{number}" / "online": "1\n" for number in range(memory_blocks)})
    files.update({roots.sys / "class/dmi/id" / name: text + "\n" for name, text in (dmi or {}).items()})
    for name, own in (disks or {}).items():
        files.update({roots.sys / "block" / name / path: text + "\n" for path, text in own.items()})
    for root in roots:
        root.mkdir(parents=True)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return roots


def disk(model: str, size_gb: int, *, rotational: bool = False, **more: str) -> dict[str, str]:
    """A disk that is there; further files by name with `_` for `/`."""
    return {
        "device/model": model,
        "size": str(size_gb * 10**9 // 512),
        "queue/rotational": str(int(rotational)),
        "removable": "0",
        **{name.replace("_", "/"): text for name, text in more.items()},
    }


def dell(folder: Path) -> Roots:
    """A two-socket server with 512 GB, two NVMe disks, two hard disks, and what isn't a disk of its own."""
    return lay_down(
        folder,
        cpus=cpuinfo("Intel(R) Xeon(R) Gold 6430", 2),
        memory_blocks=256,
        mem_total_kb=520_000_000,
        dmi={"sys_vendor": "Dell Inc.", "product_name": "PowerEdge R660"},
        disks={
            "nvme0n1": disk("Dell Ent NVMe v2 AGN RI U.2 1.92TB", 1920, device_transport="pcie"),
            "nvme1n1": disk("Dell Ent NVMe v2 AGN RI U.2 1.92TB", 1920, device_transport="pcie"),
            "nvme2n1": disk("Linux", 4000, device_transport="tcp"),
            "nvme0c0n1": disk("Dell Ent NVMe v2 AGN RI U.2 1.92TB", 1920, hidden="1"),
            "sda": disk("TOSHIBA MG08ACA16TE", 16000, rotational=True, device_vendor="ATA"),
            "sdb": disk("TOSHIBA MG08ACA16TE", 16000, rotational=True, device_vendor="ATA"),
            "sdc": disk("Cruzer Blade", 32) | {"removable": "1"},
            "sdd": disk("SD card reader", 0),
            "sr0": disk("DVD-ROM", 4),
            "sde": disk("disk0", 500, device_vendor="LIO-ORG"),
            "loop0": {"size": "1000", "queue/rotational": "0"},
            "dm-0": {"size": "1000", "queue/rotational": "0"},
            "md0": {"size": "1000", "queue/rotational": "1"},
            "zram0": {"size": "1000", "queue/rotational": "0"},
        },
    )


def virtual_machine(folder: Path) -> Roots:
    """A guest whose hypervisor shows one socket and its own disks."""
    return lay_down(
        folder,
        cpus=cpuinfo("Intel(R) Xeon(R) Platinum 8480C", 1, hypervisor=True),
        mem_total_kb=16_000_000,
        dmi={"sys_vendor": "QEMU", "product_name": "Standard PC (Q35 + ICH9, 2009)"},
        disks={"vda": {"device/vendor": "0x1af4", "size": "1000", "queue/rotational": "1", "removable": "0"}},
    )
