"""A powercap tree in real files whose counters advance, for tests and for machines without RAPL.

Laid out like the kernel's: zones nest under SYS/devices/virtual/powercap, SYS/class/powercap holds links to them.
Energy is integer microjoules, summed without rounding loss. A counter is rewritten in place, at fixed width, so that
a reader with a kept descriptor sees it move. As a command (`python -m tests.doubles.powercap --help`) it feeds an
agent: `wattribute agent --sys ROOT`.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.doubles.powerlaws import STEP_S, CpuLaw, Law, Writer, node_cpu_ns, pids_cpu_ns

__all__ = [
    "AMD_RANGE_UJ",
    "INTEL_RANGE_UJ",
    "NOBODY",
    "CpuLaw",
    "Law",
    "Package",
    "PowercapTree",
    "Writer",
    "Zone",
    "node_cpu_ns",
    "pids_cpu_ns",
    "unprivileged",
]

INTEL_RANGE_UJ = 262_143_328_850  # 2**32 - 1 units of 61 uJ
AMD_RANGE_UJ = 65_532_610_987  # 2**32 - 1 units of 15.3 uJ
NOBODY = 65_534


class Zone:
    """One zone: `key` is the kernel's name for it (intel-rapl:0:0), `name` what its `name` file says.

    `true_uj` is all the energy ever added, whatever a reader could see of it.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        range_uj: int | None,
        limits_uw: Sequence[int],
        link: Path | None,
        energy_uj: int,
    ) -> None:
        self.directory = directory
        self.key = directory.name
        self.name = name
        self.range_uj = range_uj
        self.true_uj = 0
        self._limits_uw = limits_uw
        self._link = link
        self._energy_uj = energy_uj
        self._fd = -1
        self._children: list[Zone] = []
        self._lock = threading.RLock()
        self._create()

    @property
    def path(self) -> Path:
        """The counter's file."""
        return self.directory / "energy_uj"

    @property
    def energy_uj(self) -> int:
        """What the counter shows (or would, were it there)."""
        return self._energy_uj

    @energy_uj.setter
    def energy_uj(self, value: int) -> None:
        with self._lock:
            self._energy_uj = value
            if self._fd >= 0:
                # One write of constant length into the same file: a reader sees the old line or the new one.
                os.pwrite(self._fd, b"%-20d\n" % value, 0)

    def add(self, energy_uj: int) -> None:
        """Use so much energy; the counter starts over at its range."""
        with self._lock:
            self.true_uj += energy_uj
            total_uj = self._energy_uj + energy_uj
            self.energy_uj = total_uj % self.range_uj if self.range_uj else total_uj

    def reset(self) -> None:
        """The counter falls to 0, as after a suspend."""
        self.energy_uj = 0

    def vanish(self) -> None:
        """The zone and those below leave the tree, as when the driver is unloaded.

        sysfs answers ENODEV on a kept descriptor; a file can't, so it is emptied first.
        """
        for child in self._children:
            child.vanish()
        with self._lock:
            self._detach()
            shutil.rmtree(self.directory)
            if self._link is not None:
                self._link.unlink()

    def return_(self) -> None:
        """The zone and those below come back, in new files, with the counter where it would have been."""
        self._create()
        for child in self._children:
            child.return_()

    def deny(self) -> None:
        """Take every right to the file away. Root reads it all the same: see `unprivileged`."""
        self.path.chmod(0)

    def allow(self, mode: int = 0o444) -> None:
        """Give rights back."""
        self.path.chmod(mode)

    def block(self) -> None:
        """A FIFO that nobody writes takes the file's place: who opens it to read waits for ever."""
        with self._lock:
            self._detach()
            self.path.unlink()
            os.mkfifo(self.path)

    def unblock(self) -> None:
        """The counter takes its place again."""
        with self._lock:
            self.path.unlink()
            self._open()

    def garble(self, content: bytes) -> None:
        """The file holds this, until the next value is written."""
        with self._lock:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, content, 0)

    def restore(self) -> None:
        """The counter's value again, after `garble`."""
        with self._lock:
            os.ftruncate(self._fd, 0)
            self.energy_uj = self._energy_uj

    def close(self) -> None:
        """Give the descriptor back; the files stay."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def adopt(self, child: "Zone") -> None:
        """A zone below this one leaves and comes back with it."""
        self._children.append(child)

    def _create(self) -> None:
        with self._lock:
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / "name").write_text(self.name + "\n")
            if self.range_uj is not None:
                (self.directory / "max_energy_range_uj").write_text(f"{self.range_uj}\n")
            for i, limit_uw in enumerate(self._limits_uw):
                (self.directory / f"constraint_{i}_power_limit_uw").write_text(f"{limit_uw}\n")
                (self.directory / f"constraint_{i}_max_power_uw").write_text(f"{limit_uw}\n")
            if self._link is not None and not self._link.is_symlink():
                self._link.symlink_to(os.path.relpath(self.directory, self._link.parent))
            self._open()

    def _open(self) -> None:
        self.path.unlink(missing_ok=True)  # of an earlier run, read-only for its owner too
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o444)
        os.ftruncate(self._fd, 0)
        self.energy_uj = self._energy_uj

    def _detach(self) -> None:
        os.ftruncate(self._fd, 0)
        self.close()


@dataclass
class Package:
    """A socket or die with the zones below it."""

    package: Zone
    dram: Zone | None = None
    parts: list[Zone] = field(default_factory=list)


class PowercapTree:
    """Zones under `root`, which stands for /sys. A context manager that gives the descriptors back.

    `links` False lays the nested directories themselves under class/powercap, without links.
    """

    def __init__(self, root: Path, *, links: bool = True) -> None:
        self.root = root
        self.zones: list[Zone] = []
        self._links = links
        self._class = root / "class" / "powercap"
        self._base = root / "devices" / "virtual" / "powercap" if links else self._class
        self._class.mkdir(parents=True, exist_ok=True)
        self._next: dict[str, int] = {}

    def __enter__(self) -> "PowercapTree":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptors back; the files stay."""
        for zone in self.zones:
            zone.close()

    def add_zone(
        self,
        name: str,
        *,
        parent: Zone | None = None,
        control: str = "intel-rapl",
        range_uj: int | None = INTEL_RANGE_UJ,
        limits_uw: Sequence[int] = (),
        energy_uj: int = 0,
    ) -> Zone:
        """A zone with the next free number of its control type or parent."""
        if self._links:
            (self._base / control).mkdir(parents=True, exist_ok=True)
            if not (self._class / control).is_symlink():
                (self._class / control).symlink_to(os.path.relpath(self._base / control, self._class))
        above = parent.key if parent else control
        number = self._next.get(above, 0)
        self._next[above] = number + 1
        key = f"{above}:{number}"
        zone = Zone(
            directory=(parent.directory if parent else self._base / control) / key,
            name=name,
            range_uj=range_uj,
            limits_uw=limits_uw,
            link=self._class / key if self._links else None,
            energy_uj=energy_uj,
        )
        if parent is not None:
            parent.adopt(zone)
        self.zones.append(zone)
        return zone

    def add_package(
        self,
        n: int = 0,
        *,
        die: int | None = None,
        dram: bool = True,
        range_uj: int | None = INTEL_RANGE_UJ,
        mmio: bool = False,
        vendor: str = "intel",
        energy_uj: int = 0,
    ) -> Package:
        """A package as the kernel shows it: Intel with core, dram and power limits, AMD with core alone.

        `mmio` puts it under intel-rapl-mmio, the second way to the same counter.
        """
        amd = vendor == "amd"
        package = self.add_zone(
            f"package-{n}" if die is None else f"package-{n}-die-{die}",
            control="intel-rapl-mmio" if mmio else "intel-rapl",
            range_uj=AMD_RANGE_UJ if amd else range_uj,
            limits_uw=() if amd else (150_000_000, 180_000_000),
            energy_uj=energy_uj,
        )
        below = Package(package)
        if not mmio:
            below.parts.append(self.add_zone("core", parent=package, range_uj=package.range_uj))
        if dram and not amd:
            below.dram = self.add_zone("dram", parent=package, range_uj=range_uj, limits_uw=(0,), energy_uj=energy_uj)
        return below

    def say_cpu(self, vendor: str = "intel", *, hypervisor: bool = False) -> None:
        """Write what the kernel says of the CPU where it has no /proc: devices/system/cpu/modalias."""
        directory = self.root / "devices" / "system" / "cpu"
        directory.mkdir(parents=True, exist_ok=True)
        number = {"intel": "0000", "amd": "0002"}.get(vendor)
        features = ",0000,0001,009F,00C0" if hypervisor else ",0000,0001,00C0"
        text = f"cpu:type:x86,ven{number}fam0006mod0055:feature:{features}" if number else "cpu:type:aarch64:feature:"
        (directory / "modalias").write_text(text + "\n")

    @contextmanager
    def running(self, laws: Mapping[Zone, Law], step_s: float = STEP_S) -> Iterator[Writer]:
        """Let the counters advance by these laws until the end of the block; then `true_uj` of the zones is final."""
        writer = Writer(laws.items(), step_s)
        writer.start()
        try:
            yield writer
        finally:
            writer.stop()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root reads every file; inside this block it is nobody, so that modes count. A no-op for other users.

    The directories on the way must be open to all: pytest's tmp_path isn't.
    """
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Lay out a tree, drive it for a while, print the truth as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.doubles.powercap", description=__doc__)
    parser.add_argument("root", type=Path, help="what the agent gets as --sys")
    parser.add_argument("--packages", type=int, default=1, help="each draws by the same law")
    parser.add_argument("--idle-w", type=float, default=10.0, help="watts of a package at rest")
    parser.add_argument("--w-per-core", type=float, default=20.0, help="watts of one busy core")
    parser.add_argument("--dram-w", type=float, default=0.0, help="watts of each package's memory; 0: no dram zone")
    parser.add_argument("--range-uj", type=int, default=INTEL_RANGE_UJ, help="where counters start over")
    parser.add_argument("--pids", type=lambda text: [int(pid) for pid in text.split(",")], metavar="PID,PID")
    parser.add_argument("--seconds", type=float, help="how long; default: until SIGINT or SIGTERM")
    options = parser.parse_args(arguments)
    cpu_ns = pids_cpu_ns(options.pids) if options.pids else node_cpu_ns()
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with PowercapTree(options.root) as tree:
        laws: dict[Zone, Law] = {}
        for n in range(options.packages):
            below = tree.add_package(n, dram=options.dram_w > 0, range_uj=options.range_uj)
            laws[below.package] = CpuLaw(options.idle_w, options.w_per_core, cpu_ns)
            if below.dram is not None:
                laws[below.dram] = lambda _: float(options.dram_w)
        with tree.running(laws) as writer:
            done.wait(options.seconds)
        truth = [
            {
                "key": zone.key,
                "name": zone.name,
                "true_uj": zone.true_uj,
                "cpu_ns": law.used_ns if isinstance(law, CpuLaw) else None,
            }
            for zone, law in laws.items()
        ]
    json.dump({"seconds": writer.seconds, "zones": truth}, sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
