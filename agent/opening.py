"""Opens a Node for the daemon (with the ledger) or inside a process (without)."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wattribute import __version__
from wattribute.agent.admission import Admission
from wattribute.agent.climate import Climate
from wattribute.agent.config import Loaded, load
from wattribute.agent.config.schema import Config
from wattribute.agent.core.books import Books
from wattribute.agent.core.hardware import Hardware
from wattribute.agent.core.model import Account, Clock, UsageReading
from wattribute.agent.core.products import counted_alone
from wattribute.agent.core.taxes import Taxes
from wattribute.agent.dues import Dues
from wattribute.agent.grid import chosen, knows_pue, open_grid
from wattribute.agent.job_sources import open_found_jobs
from wattribute.agent.live import CpuTime
from wattribute.agent.node import Node
from wattribute.agent.norecord import NoRecord
from wattribute.agent.registry import Registry
from wattribute.agent.requests import Basis
from wattribute.agent.serving import Serving
from wattribute.agent.user_names import UserNames
from wattribute.agent.wiring import Sensors, boot_id, components, node_id, open_sensors, products, rules

if TYPE_CHECKING:
    from wattribute.agent.allotted import AllottedGpus
    from wattribute.agent.courier import Courier
    from wattribute.agent.engines import Engines
    from wattribute.agent.record import Record
    from wattribute.collectors.process.collector import Processes


class SystemClock:
    """CLOCK_BOOTTIME, which counts suspend, where the system has it; else the monotonic clock."""

    if sys.platform == "linux":

        def monotonic_ns(self) -> int:
            return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

        def asleep_ns(self) -> int:
            """CLOCK_BOOTTIME goes on in suspend and CLOCK_MONOTONIC doesn't; a millisecond apart is the two calls."""
            asleep_ns = self.monotonic_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            return asleep_ns if asleep_ns > 1_000_000 else 0
    else:

        def monotonic_ns(self) -> int:
            return time.monotonic_ns()

        def asleep_ns(self) -> int:
            """Not known here."""
            return 0

    def time_ns(self) -> int:
        return time.time_ns()


def open_daemon_node(loaded: Loaded) -> Node:
    """The daemon's node, gone on from where its ledger ends, as the user that it is to be.

    Raises SensorUnavailable, LedgerError, ConfigError; WattributeError where it can't become that user.
    """
    from wattribute.agent.record import Record

    config, clock = loaded.config, SystemClock()
    sensing = None
    if config.agent.user:
        from wattribute.agent.unprivileged import sense_and_become

        sensing = sense_and_become(config, lambda: sense(config, clock, "daemon"))
    identity = node_id(config)
    boot = boot_id(Path(config.paths.proc))
    # The ledger before all that isn't root's alone: its lock keeps a second agent from counting the same node.
    record = Record.open(Path(config.agent.state_dir), node_id=identity, boot=boot, clock=clock)
    try:
        courier = open_courier(config, identity, clock)
        return open_node(loaded, "daemon", identity, clock, record, courier=courier, sensing=sensing)
    except BaseException:
        record.close()
        raise


class Sensing(NamedTuple):
    """What measures: who uses the CPU, and what draws power."""

    cpu: CpuTime
    accounts_ns: dict[Account, int]
    sensors: Sensors


def sense(config: Config, clock: Clock, basis: Basis, kernel: "Processes | None" = None) -> Sensing:
    """Open what measures. Raises SensorUnavailable for what is named or required."""
    cpu = _cpu_time(config, clock, basis, kernel)
    accounts, sensors = _accounts(cpu.read()), open_sensors(config, clock, cpu)
    # In a process of one's own it is left alone: what is of the whole node isn't the process's to split.
    if basis == "daemon" and config.collectors.wall != "off":
        from wattribute.agent.wall import open_wall

        open_wall(config, clock, sensors)
    return Sensing(cpu, accounts, sensors)


def open_courier(config: Config, identity: str, clock: Clock) -> "Courier":
    """What stands between the node and the archive, begun. Raises ConfigError where its driver isn't installed."""
    from wattribute.agent.archive import is_local
    from wattribute.agent.courier import Courier

    courier = Courier(config, identity, clock)
    if is_local(config):
        courier.work()  # who may register what is known before the first job comes
    courier.start()
    return courier


def open_in_process(environment: Mapping[str, str]) -> Node:
    """A node for jobs of this process alone: no ledger, no socket. Raises ConfigError, SensorUnavailable."""
    loaded = load(None, environment, {})
    clock = SystemClock()
    return open_node(loaded, "in-process", node_id(loaded.config), clock, NoRecord(clock.time_ns()))


def open_node(
    loaded: Loaded,
    basis: Basis,
    identity: str,
    clock: Clock,
    record: "Record | NoRecord",
    *,
    courier: "Courier | None" = None,
    kernel: "Processes | None" = None,
    inline: bool = False,
    sensing: Sensing | None = None,
) -> Node:
    """A node over its record. `kernel` stands in for /proc; `inline`: jobs are looked for in the tick's own thread.

    `sensing`: what measures, where it had to be opened before.
    """
    from wattribute.collectors.host import host_facts, resident_bytes

    config = loaded.config
    cpu, accounts, sensors = sensing or sense(config, clock, basis, kernel)
    facts = host_facts()
    hardware, hardware_note = components(config, sensors.names_of_gpus())
    notes = [hardware_note] if hardware_note else []
    made = Hardware(hardware)
    climate = _climate(loaded, basis, clock, made)
    if not chosen(loaded):
        default = climate.intensity(clock.time_ns()).gco2e_per_kwh
        notes.append(
            f"carbon intensity defaulted to {default:g} g/kWh, the world's average: set [carbon] to your grid's"
        )
    if not knows_pue(loaded):
        notes.append("PUE defaulted to 1.0: cooling and power loss are left out until [carbon] pue is set")
    declared = products(config)
    if courier is None or not courier.hears_of_others:
        declared = [counted_alone(product) for product in declared]
    at_ns = record.resume_at_ns(clock.monotonic_ns())
    books = Books(
        rules(config, sensors, facts.cpus, facts.memory_bytes),
        made,
        Taxes(declared, at_ns),
        at_ns,
        climate.grid.prices,
        sensors.rest,
    )
    names = UserNames()
    found = open_found_jobs(config, clock, cpu, names.resolve, inline=inline) if basis == "daemon" else None
    registry = Registry(
        books,
        cpu,
        Admission(
            owner_of=_labeller(config, names),
            owns=_ownership(books.taxes, basis, names),
            privileged=lambda uid: uid == 0 or uid in config.agent.scheduler_uids,
            uid_of=lambda pid: _uid_of(Path(config.paths.proc), pid),
        ),
        max_jobs=config.export.max_jobs,
        groups=None if found is None else found.groups,
    )
    dues = Dues(books, declared, courier)
    dues.follow(at_ns)
    serving = Serving(books, registry, clock, config.serving.max_tenants)
    record.restore(books, registry, serving, cpu, accounts)
    if basis == "daemon":
        _settle(climate, record, Path(config.agent.state_dir), clock, books.taxes)
    return Node(
        config,
        basis=basis,
        node_id=identity,
        version=__version__,
        clock=clock,
        cpu=cpu,
        names=names if basis == "daemon" and config.export.user_label == "name" else None,
        sensors=sensors,
        books=books,
        registry=registry,
        serving=serving,
        record=record,
        climate=climate,
        dues=dues,
        notes=notes,
        resident_bytes=resident_bytes,
        found=found,
        allotted=_allotted(config, sensors, clock, inline=inline) if basis == "daemon" else None,
        engines=_engines(config, clock, inline=inline) if basis == "daemon" else None,
    )


def _climate(loaded: Loaded, basis: Basis, clock: Clock, hardware: Hardware) -> Climate:
    """In a process of one's own nobody is asked: what an agent or `intensity fetch` left in the cache counts."""
    config = loaded.config
    grid = open_grid(config, clock, Path(config.agent.state_dir), chosen(loaded), asks=basis == "daemon")
    return Climate(grid, pue_configured=knows_pue(loaded), hardware=hardware.band())


def _settle(climate: Climate, record: "Record | NoRecord", state_dir: Path, clock: Clock, taxes: Taxes) -> None:
    if not climate.varies:
        return
    from wattribute.agent.settlement import Settlement

    def metered_here(product_id: str) -> bool:
        product = taxes.products.get(product_id)
        return product is not None and product.scope != "fleet" and not product.overhead_rate

    grid, done = climate.grid, record.corrections
    settlement = Settlement(state_dir, grid.final_price, clock.time_ns, done.position, grid.since_unix_ns, metered_here)
    climate.settle_with(settlement, clock.time_ns(), done.until_unix_ns)


def _allotted(config: Config, sensors: Sensors, clock: Clock, *, inline: bool) -> "AllottedGpus | None":
    if not config.jobs.gpu_map_dir:
        return None
    from wattribute.agent.allotted import AllottedGpus
    from wattribute.collectors.gpu_map import GpuMap

    return AllottedGpus(GpuMap(config.jobs.gpu_map_dir), sensors.gpu_indices, clock, threaded=not inline)


def _engines(config: Config, clock: Clock, *, inline: bool) -> "Engines | None":
    if not config.engine:
        return None
    from wattribute.agent.engines import Engines

    return Engines(config.engine, clock, threaded=not inline)


def _cpu_time(config: Config, clock: Clock, basis: Basis, kernel: "Processes | None") -> CpuTime:
    if sys.platform == "linux":
        from wattribute.collectors.process import ProcessCollector

        # In-process there is no platform to speak of: what isn't the job's is left to whoever measures the node.
        overhead = config.attribution.overhead_cgroups if basis == "daemon" else ()
        paths = config.paths
        return ProcessCollector(Path(paths.proc), Path(paths.cgroup), clock.monotonic_ns, overhead, os.getpid(), kernel)
    from wattribute.collectors.host import PortableProcessCollector

    return PortableProcessCollector(clock.monotonic_ns, os.getpid())


def _accounts(readings: list[UsageReading]) -> dict[Account, int]:
    return {r.consumer: r.busy_ns for r in readings if isinstance(r.consumer, str)}


def _labeller(config: Config, names: UserNames) -> Callable[[int], str]:
    """How a user is named on series: by name, uid, hash, or not at all."""
    how = config.export.user_label
    if how == "off":
        return lambda uid: ""
    if how == "uid":
        return str
    if how == "hash":
        import hashlib

        return lambda uid: hashlib.sha256(f"wattribute user {uid}".encode()).hexdigest()[:12]
    return names


def _ownership(taxes: Taxes, basis: Basis, names: UserNames) -> Callable[[str, int], bool]:
    """Who may register roles and weights for a product; in one's own process, everybody."""

    def owns(product_id: str, uid: int) -> bool:
        product = taxes.products.get(product_id)
        allowed = () if product is None else product.owners
        return basis == "in-process" or uid == 0 or str(uid) in allowed or names(uid) in allowed

    return owns


def _uid_of(proc: Path, pid: int) -> int | None:
    try:
        return (proc / str(pid)).stat().st_uid
    except OSError:
        return None
