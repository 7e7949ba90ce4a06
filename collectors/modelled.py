"""Energy where there is no sensor: from utilisation and a CPU's rated power, never called anything but modelled.

CPU: P = idle + (max - idle) * utilisation, so energy = idle * dt + (max - idle) / cpus * CPU time: exact for any
window, integrated in integers. DRAM: watts per GiB of installed memory, whatever is in use. Units: microjoules.
"""

import csv
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from wattribute.agent.core.model import Domain, EnergyReading, Finding
from wattribute.agent.core.units import NS_PER_S, uw_from_w

GENERIC_W_PER_THREAD = 4.0
"""CodeCarbon's DEFAULT_POWER_PER_CORE (core/cpu.py), by which it multiplies the threads of a CPU it doesn't know."""

IDLE_SHARE = 0.1
"""Idle power as a part of the rated one, where nothing is configured: CodeCarbon's floor for an unused CPU."""

GIB = 2**30

_MARKS = re.compile(r"\((?:r|tm|c)\)|[®™]", re.IGNORECASE)
_CORES = re.compile(r"\b(\d+)-core\b", re.IGNORECASE)
_WORD_CORES = {"dual": 2, "triple": 3, "quad": 4, "six": 6, "eight": 8}
_NOISE = re.compile(r"cpu|processors?|apu|with|radeon|graphics|gen|\d+th|[a-z]+-core|\d+(\.\d+)?[gm]hz|[gm]hz")
_DIGIT = re.compile(r"\d")


class ModelledCollector:
    """Cumulative modelled energy of the CPUs (`cpu-modelled`) and of memory (`dram-modelled`), from 0 at the start.

    `clock` is CLOCK_BOOTTIME and `node_cpu_ns` all CPU time of the node, both cumulative in nanoseconds; `cpus` the
    logical CPUs that it is spread over. `why` says why nothing is measured. Never raises.
    """

    name = "modelled"

    def __init__(
        self,
        clock: Callable[[], int],
        node_cpu_ns: Callable[[], int],
        *,
        cpus: int,
        cpu_idle_w: float,
        cpu_max_w: float,
        dram_w_per_gib: float,
        memory_bytes: int,
        cpu: bool,
        dram: bool,
        why: str,
    ) -> None:
        self._clock = clock
        self._node_cpu_ns = node_cpu_ns
        self._cpus = cpus
        self._idle_uw = uw_from_w(cpu_idle_w)
        self._span_uw = max(0, uw_from_w(cpu_max_w) - self._idle_uw)
        self._dram_uw = uw_from_w(dram_w_per_gib) * memory_bytes // GIB
        self._memory_bytes = memory_bytes
        self._cpu = cpu
        self._dram = dram
        self._why = why
        self._start_ns = self._at_ns = clock()
        self._seen_cpu_ns = node_cpu_ns() if cpu else 0
        self._busy_ns = 0

    def read(self) -> list[EnergyReading]:
        """What was used since the start, by the model."""
        at_ns = max(self._at_ns, self._clock())
        readings = []
        if self._cpu:
            cpu_ns = self._node_cpu_ns()
            # CPU time comes in lumps (ticks, late cgroups): what is more than all CPUs can do waits for the next read.
            possible_ns = (at_ns - self._start_ns) * self._cpus
            self._busy_ns = max(self._busy_ns, min(cpu_ns - self._seen_cpu_ns, possible_ns))
            energy_uj = (self._idle_uw * (at_ns - self._start_ns) * self._cpus + self._span_uw * self._busy_ns) // (
                NS_PER_S * self._cpus
            )
            readings.append(_reading("cpu", at_ns, energy_uj, self._idle_uw + self._span_uw))
        if self._dram:
            energy_uj = self._dram_uw * (at_ns - self._start_ns) // NS_PER_S
            readings.append(_reading("dram", at_ns, energy_uj, self._dram_uw))
        self._at_ns = at_ns
        return readings

    def probe(self) -> list[Finding]:
        """What is modelled, from what, and why."""
        findings = []
        if self._cpu:
            value = f"{self._idle_uw / 1e6:g} W idle to {(self._idle_uw + self._span_uw) / 1e6:g} W, {self._cpus} CPUs"
            findings.append(self._finding("cpu-modelled", value, "cpu_idle_w and cpu_max_w"))
        if self._dram:
            value = f"{self._dram_uw / 1e6:g} W for {self._memory_bytes / GIB:.1f} GiB"
            findings.append(self._finding("dram-modelled", value, "dram_w_per_gib"))
        return findings

    def close(self) -> None:
        """Nothing is kept open."""

    def _finding(self, path: str, value: str, keys: str) -> Finding:
        return Finding(
            source=self.name,
            path=path,
            ok=True,
            why=f"modelled, not measured: {self._why}",
            value=value,
            quality="modelled",
            fix=f"set {keys} under [modelled] to your machine's, measured at the wall",
        )


def _reading(kind: str, at_ns: int, energy_uj: int, ceiling_uw: int) -> EnergyReading:
    return EnergyReading(
        domain=Domain(kind="cpu" if kind == "cpu" else "dram", id=f"{kind}-modelled"),
        at_ns=at_ns,
        energy_uj=energy_uj,
        ceiling_uw=ceiling_uw,
        quality="modelled",
    )


def cpu_defaults(
    model_name: str, threads: int, packages: int | None = 1, table: Path | None = None
) -> tuple[float, float, str]:
    """Idle and maximum watts for `threads` visible logical CPUs of a model, and where they come from, in words.

    The rated power (TDP) is CodeCarbon's, for exactly the model that the name says, times `packages`; None is a virtual
    machine. It sees a part of a CPU: where the name says how many cores that has, its threads' part of the power, at
    two threads a core; else no more than the generic figure. `table` replaces the installed one.
    """
    path = _table_path() if table is None else table
    generic_w = GENERIC_W_PER_THREAD * threads
    generic = f"generic {GENERIC_W_PER_THREAD:g} W a thread"
    found = None if path is None else _look_up(model_name, path)
    if found is None:
        known = f"{model_name!r} isn't in CodeCarbon's CPU table" if path is not None else "CodeCarbon isn't installed"
        return _watts(generic_w, f"{generic}: {known}")
    name, tdp_w = found
    source = f"TDP of {name}, {tdp_w:g} W, from CodeCarbon's CPU table"
    cores = _cores(model_name)
    if cores and (packages is None or threads < cores):
        return _watts(tdp_w * threads / (2 * cores), f"{source}, {threads} of its {2 * cores} threads")
    if packages is not None:
        count = max(packages, -(-threads // (2 * cores))) if cores else packages
        return _watts(tdp_w * count, f"{source}, {count} of them, all their threads taken as visible")
    if generic_w < tdp_w:
        return _watts(generic_w, f"{generic}: a virtual machine's part of {name}, {tdp_w:g} W, isn't known")
    return _watts(tdp_w, source)


def _watts(max_w: float, source: str) -> tuple[float, float, str]:
    return round(max_w * IDLE_SHARE, 3), round(max_w, 3), source


def _table_path() -> Path | None:
    """The table of the installed CodeCarbon, which isn't imported: that takes 289 ms and runs nvidia-smi."""
    spec = importlib.util.find_spec("codecarbon")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / "data" / "hardware" / "cpu_power.csv"
        if path.is_file():
            return path
    return None


def _look_up(model_name: str, table: Path) -> tuple[str, float] | None:
    """The table's row that has the same words; None where there is none, or two that disagree on the power.

    No nearest match: "AMD EPYC" (a hypervisor hides the rest) isn't an EPYC 7763, nor "Apple M1 Max" an M1.
    """
    words = _words(model_name)
    key = max((word for word in words if _DIGIT.search(word)), key=len, default=None)
    if key is None:
        return None
    rows = [(name, tdp_w) for name, tdp_w in _rows(table) if key in name.lower() and _words(name) == words]
    return rows[0] if len({tdp_w for _, tdp_w in rows}) == 1 else None


def _rows(table: Path) -> Iterator[tuple[str, float]]:
    try:
        with table.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                try:
                    yield row["Name"], float(row["TDP"])
                except (KeyError, TypeError, ValueError):
                    continue
    except OSError:
        return


def _words(name: str) -> frozenset[str]:
    """A name's words without marks, clock rates, core counts, built-in graphics and the like; lower case."""
    name = _CORES.sub(" ", _MARKS.sub(" ", name.lower().partition(" w/ ")[0].partition("@")[0]))
    return frozenset(word for word in name.replace(",", " ").split() if not _NOISE.fullmatch(word))


def _cores(name: str) -> int | None:
    """Cores of one package, where the name tells ("64-Core", "Quad-Core")."""
    found = _CORES.search(name)
    if found:
        return int(found[1])
    return next((n for word, n in _WORD_CORES.items() if f"{word}-core" in name.lower()), None)
