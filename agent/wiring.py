"""From the configuration to a node's parts: which sensors there are, what things cost, who pays."""

import datetime
import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from wattribute.agent.config.schema import Config, IdleW
from wattribute.agent.core.books import Rules
from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.hardware import Component
from wattribute.agent.core.model import (
    Clock,
    Collector,
    DomainKind,
    EnergyReading,
    PowerReading,
    ProcessId,
    Quality,
    Reading,
)
from wattribute.agent.core.products import MICRO, Product
from wattribute.agent.core.receipt import UNSEEN
from wattribute.agent.core.rest import Rest
from wattribute.agent.core.units import DAY_S, NS_PER_S, YEAR_S, ng_from_kg, rate_from_g_per_min, uw_from_w
from wattribute.agent.sources import Source

if TYPE_CHECKING:
    from wattribute.agent.live import CpuTime
    from wattribute.collectors.nvml import NvmlCollector

log = logging.getLogger("wattribute")

DEADLINE_NS = NS_PER_S
FIRST_READ_NS = 5 * NS_PER_S  # without persistence mode the first call wakes the GPU: 1 to 3 s each


@dataclass(slots=True)
class Sensors:
    """The energy sources of a node, and how each domain's number is made, in words."""

    sources: list[Source[Reading]] = field(default_factory=list)
    method: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    first: list[EnergyReading | PowerReading] = field(default_factory=list)
    modelled_idle_uw: dict[DomainKind, int] = field(default_factory=dict)
    rest: Rest | None = None  # where there is a sensor of the whole node
    unseen: Sequence[str] = UNSEEN  # what of the node no sensor sees
    gpu_methods: Callable[[], Mapping[str, str]] = dict
    gpu_indices: Callable[[], Mapping[int, str]] = dict
    gpu_names: Callable[[], Mapping[str, str]] = dict

    def names_of_gpus(self) -> list[str]:
        """The product name of each GPU whose energy was read when the sensors were opened; "" where none is told."""
        names = self.gpu_names()
        return [names.get(gpu, "") for gpu in sorted({r.domain.id for r in self.first if r.domain.kind == "gpu"})]


def open_sensors(config: Config, clock: Clock, cpu: "CpuTime") -> Sensors:
    """Open what the configuration asks for and the machine has.

    Raises SensorUnavailable where a source that is named or required can't be opened; one found automatically is a
    log line and a note.
    """
    sensors = Sensors()
    seen: set[DomainKind] = set()
    why_modelled = "rapl is off in the configuration"
    required = set(config.collectors.require)
    if config.collectors.rapl == "off" and "rapl" in required:
        raise SensorUnavailable("rapl is required and switched off", 'set collectors.rapl = "auto"')
    if config.collectors.rapl != "off":
        named = config.collectors.rapl != "auto" or "rapl" in required
        why_modelled = _try(sensors, seen, lambda: _rapl(config, clock), clock, named=named)
    if config.collectors.nvml != "off":

        def open_nvml() -> Collector:
            collector = _nvml(config, clock, lambda pid: cpu.recall(pid) or cpu.identify(pid))
            sensors.gpu_methods, sensors.gpu_indices = collector.methods, collector.indices
            sensors.gpu_names = collector.names
            return collector

        _try(sensors, seen, open_nvml, clock, named="nvml" in required)
    elif "nvml" in required:
        raise SensorUnavailable("nvml is required and switched off", 'set collectors.nvml = "auto"')
    backend = "pyRAPL" if config.collectors.rapl == "pyrapl" else "powercap"
    if "cpu" in seen:
        sensors.method["cpu"] = f"{backend}, split by CPU time"
    if "dram" in seen:
        sensors.method["dram"] = f"{backend}, idle by memory, the rest by CPU time (as a proxy)"
    if config.collectors.modelled == "auto" and not {"cpu", "dram"} <= seen:
        _add_modelled(sensors, seen, config, clock, cpu.node_ns, why_modelled)
    return sensors


def _try(sensors: Sensors, seen: set[DomainKind], start: Callable[[], Collector], clock: Clock, *, named: bool) -> str:
    """Open one collector and read it once, within a deadline; returns why it isn't there, or what it lacks."""
    try:
        collector = start()
    except SensorUnavailable as error:
        if named:
            raise
        log.info("%s", error)
        return str(error)
    source = Source(collector, clock, deadline_ns=DEADLINE_NS)
    source.request()
    energy = [r for r in source.collect(FIRST_READ_NS) if isinstance(r, EnergyReading | PowerReading)]
    if not energy and named:
        source.close()
        raise SensorUnavailable(f"{source.name}: {source.why or 'no answer'}", source.fix)
    if not energy and source.absent:
        source.close()
        return source.why
    # One that is there and can't be read stays: its health is on the page, and it may come.
    seen.update(r.domain.kind for r in energy)
    sensors.first += energy
    sensors.sources.append(source)
    return f"{source.name} has no such zone" if energy else source.why or f"{source.name} doesn't answer"


def _rapl(config: Config, clock: Clock) -> Collector:
    if config.collectors.rapl == "pyrapl":
        from wattribute.collectors.pyrapl import PyRaplCollector

        return PyRaplCollector(clock.monotonic_ns)
    from wattribute.collectors.rapl import RaplCollector

    return RaplCollector(Path(config.paths.sys), clock.monotonic_ns)


def _nvml(config: Config, clock: Clock, identify: Callable[[int], ProcessId | None]) -> "NvmlCollector":
    from wattribute.collectors.nvml import NvmlCollector

    return NvmlCollector(clock.monotonic_ns, identify, proc=Path(config.paths.proc))


def _add_modelled(
    sensors: Sensors,
    seen: set[DomainKind],
    config: Config,
    clock: Clock,
    node_cpu_ns: Callable[[], int],
    why: str,
) -> None:
    from wattribute.collectors.host import host_facts
    from wattribute.collectors.modelled import ModelledCollector, cpu_defaults

    facts = host_facts()
    idle_w, max_w, source = cpu_defaults(facts.cpu_model, facts.cpus, facts.packages)
    if config.modelled.cpu_max_w is not None:
        max_w, source = config.modelled.cpu_max_w, "configured"
        idle_w = min(idle_w, max_w)
    if config.modelled.cpu_idle_w is not None:
        idle_w = config.modelled.cpu_idle_w
    per_gib_w = 0.375 if config.modelled.dram_w_per_gib is None else config.modelled.dram_w_per_gib
    model_cpu, model_dram = "cpu" not in seen, "dram" not in seen
    collector = ModelledCollector(
        clock.monotonic_ns,
        node_cpu_ns,
        cpus=facts.cpus,
        cpu_idle_w=idle_w,
        cpu_max_w=max_w,
        dram_w_per_gib=per_gib_w,
        memory_bytes=facts.memory_bytes,
        cpu=model_cpu,
        dram=model_dram,
        why=why,
    )
    sensors.sources.append(Source(collector, clock, deadline_ns=DEADLINE_NS, threaded=False))
    sensors.first += [r for r in collector.read() if isinstance(r, EnergyReading)]
    if model_cpu:
        sensors.method["cpu"] = f"modelled: {idle_w:g} W idle to {max_w:g} W at full use ({source}), split by CPU time"
        sensors.notes.append(f"cpu energy is modelled, not measured: {why}")
        sensors.modelled_idle_uw["cpu"] = uw_from_w(idle_w)
    if model_dram:
        sensors.method["dram"] = f"modelled: {per_gib_w:g} W per GiB of the host's memory"
        sensors.notes.append("dram energy is modelled, not measured: no DRAM sensor")
        # Rounded up: all of it is idle, since the model knows no use.
        sensors.modelled_idle_uw["dram"] = uw_from_w(per_gib_w) * facts.memory_bytes // 2**30 + 1


def rules(config: Config, sensors: Sensors, cpus: int, memory_bytes: int) -> Rules:
    """How this node attributes."""
    idle_uw: dict[tuple[DomainKind, Quality], int] = {}
    configured: Sequence[tuple[DomainKind, IdleW]] = (
        ("cpu", config.attribution.cpu_idle_w),
        ("dram", config.attribution.dram_idle_w),
        ("gpu", config.attribution.gpu_idle_w),
    )
    for kind, idle_w in configured:
        if idle_w != "learn":
            idle_uw[kind, "measured"] = idle_uw[kind, "integrated"] = uw_from_w(idle_w)
        if kind in sensors.modelled_idle_uw:
            idle_uw[kind, "modelled"] = sensors.modelled_idle_uw[kind]
    return Rules(
        idle=config.attribution.idle,
        overhead=config.attribution.overhead,
        idle_uw=idle_uw,
        cpus=cpus,
        memory_bytes=memory_bytes,
    )


def components(config: Config, gpu_names: Sequence[str]) -> tuple[list[Component], str]:
    """The node's hardware, and a note where it is assumed. `gpu_names`: one per GPU, as the driver spells it."""
    from wattribute.agent.embodied import LIFETIME_YEARS, assumed, configured
    from wattribute.collectors.catalogue import catalogue

    items = catalogue()
    if config.embodied:
        return configured(config.embodied, items), ""
    server, *gpus = assumed(gpu_names, items)
    item = server.item
    note = (
        f"embodied carbon assumed: a generic server of {item.central:,.0f} kg ({item.low:,.0f} to {item.high:,.0f})"
        + "".join(f", {gpu.found} of {gpu.item.central:,.0f} kg each" for gpu in gpus)
        + f", over {LIFETIME_YEARS} years: `wattribute doctor --embodied` says what fits this machine"
    )
    return [part.component() for part in (server, *gpus)], note


def products(config: Config) -> list[Product]:
    """The declared products in the core's units."""
    return [
        Product(
            id=p.id,
            kind=p.kind,
            runs_on=p.runs_on,
            owners=p.owners,
            epc_own_ng=_ng(p.epc_kgco2e),
            epc_low_ng=_ng(p.epc_kgco2e_low),
            epc_high_ng=_ng(p.epc_kgco2e_high),
            lifetime_s=None if p.lifetime_years is None else round(p.lifetime_years * YEAR_S),
            overhead_rate=rate_from_g_per_min(p.overhead_g_per_min),
            concurrency_ppm=round((p.concurrency or 0) * 1_000_000),
            parents={parent.id: Fraction(str(parent.weight)) for parent in p.parents},
            status=p.status,
            deployed_unix_ns=None if p.deployed is None else midnight_unix_ns(p.deployed),
            scope=p.scope,
            retraining_interval_s=None if (days := p.retraining_interval_days) is None else round(days * DAY_S),
            version=p.version,
            boundary=p.boundary,
            unit=p.unit,
            expected_micro_units=None if p.expected_units is None else round(p.expected_units * MICRO),
            amortise=p.amortise,
            tax_by=p.tax_by,
        )
        for p in config.product
    ]


def _ng(mass_kg: float | None) -> int | None:
    return None if mass_kg is None else ng_from_kg(mass_kg)


def midnight_unix_ns(day: datetime.date) -> int:
    """The moment at which a day begins, in UTC."""
    return (day - datetime.date(1970, 1, 1)).days * DAY_S * NS_PER_S


def node_id(config: Config) -> str:
    """The configured id, else one from the machine id (hashed: the machine id itself is confidential)."""
    if config.agent.node_id:
        return config.agent.node_id
    try:
        machine_id = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine_id = ""
    if not machine_id:
        import platform

        machine_id = platform.node()
    return hashlib.sha256(f"wattribute {machine_id}".encode()).hexdigest()[:16]


def boot_id(proc: Path) -> str:
    """This boot's identity; counters and pids of another boot mean nothing."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"unknown-{os.getpid()}"
