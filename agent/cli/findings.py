"""What `doctor` finds: each sensor, the model that stands in for one, the agent, its state directory and its port."""

import errno
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattribute.agent.cli.found_user import look_at_user, owned_by
from wattribute.agent.client import Client
from wattribute.agent.config import Config, listen_address
from wattribute.agent.config.rules import rules_of
from wattribute.agent.core.errors import SensorUnavailable, WattributeError
from wattribute.agent.core.model import Collector, EnergyReading, Finding
from wattribute.agent.job_sources import job_sources, kubelet_of
from wattribute.agent.opening import SystemClock
from wattribute.agent.user_names import user_name
from wattribute.agent.wiring import open_sensors

if TYPE_CHECKING:
    from wattribute.collectors.host import PortableProcessCollector
    from wattribute.collectors.process import ProcessCollector


def examine(config: Config) -> Iterator[Finding]:
    """Looks at every source once. Raises nothing for a machine without any."""
    if config.collectors.rapl == "off":
        yield _switched_off("rapl")
    elif config.collectors.rapl == "pyrapl":
        from wattribute.collectors.pyrapl import PyRaplCollector

        yield from read_once("rapl", "pyRAPL", lambda: PyRaplCollector(time.monotonic_ns))
    else:
        from wattribute.collectors.rapl import probe as probe_rapl

        yield from probe_rapl(Path(config.paths.sys))
    if config.collectors.nvml == "off":
        yield _switched_off("nvml")
    else:
        from wattribute.collectors.nvml import probe as probe_nvml

        yield from probe_nvml(clock=time.monotonic_ns)
    yield from look_at_wall(config)
    yield from look_at_processes(config)
    if sys.platform == "linux":
        yield from look_at_jobs(config)
        yield from look_at_user(config)
    yield from look_at_engines(config)
    yield look_at_state(Path(config.agent.state_dir), config.agent.user)
    agent = look_at_agent(config.agent.socket)
    yield agent
    yield look_at_port(config.agent.listen, agent_runs=agent.ok)


def _switched_off(source: str) -> Finding:
    return Finding(
        source=source, path="", ok=False, why="off in the configuration", fix=f'collectors.{source} = "auto"'
    )


def look_at_wall(config: Config) -> Iterator[Finding]:
    """The whole-node sensor that is configured, read once."""
    if config.collectors.wall != "off":
        from wattribute.agent.cli.found_wall import finding_of_wall

        yield finding_of_wall(config, SystemClock())


def look_at_processes(config: Config) -> Iterator[Finding]:
    """How CPU time is told, which every split needs, and what the agent would model for want of a sensor."""
    path = config.paths.proc
    try:
        cpu = _cpu_time(config)
    except SensorUnavailable as error:
        yield Finding(source="process", path=path, ok=False, why=error.cause, fix=error.fix)
        return
    try:
        why, value = f"CPU time of processes, and of the node by {cpu.node_method}", f"{cpu.node_ns() / 1e9:.2f} s"
        yield Finding(source="process", path=path, ok=True, why=why, value=value, quality="measured")
        yield from _modelled(config, cpu)
    finally:
        cpu.close()


def look_at_jobs(config: Config) -> Iterator[Finding]:
    """Where jobs are found without being told, and how many there are now."""
    from wattribute.collectors.cgroup import Tree, findings

    cgroup, proc = Path(config.paths.cgroup), Path(config.paths.proc)
    yield from findings(cgroup, proc)
    try:
        tree = Tree(cgroup, proc)
    except SensorUnavailable:  # which its finding has told
        return
    for source in job_sources(config, tree, rules_of(config), user_name, SystemClock()):
        if source.name == "kubernetes":
            from wattribute.collectors.kubernetes import findings as of_kubernetes

            yield from of_kubernetes(tree, kubelet_of(config))
            continue
        name = "rules" if source.name == "cgroup" else source.name
        try:
            groups = len(source.jobs())
        except SensorUnavailable as error:
            yield Finding(source=name, path=str(tree.top), ok=False, why=error.cause, fix=error.fix)
            continue
        finally:
            source.close()
        why = "looked for once: one that the agent would wait for to know more of isn't counted"
        yield Finding(source=name, path=str(tree.top), ok=True, why=why, value=f"found now: {groups}")
    if config.jobs.gpu_map_dir:
        from wattribute.collectors.gpu_map import GpuMap

        path = config.jobs.gpu_map_dir
        files = GpuMap(path)
        try:
            named = len(files.read())
            why = f"lines or files that aren't believed: {files.refused}" if files.refused else "read"
            fix = f"sudo chown root: {path}/* && sudo chmod 644 {path}/*; one job id a line" if files.refused else ""
            good = not files.refused
            yield Finding(source="gpu-map", path=path, ok=good, why=why, value=f"GPUs named: {named}", fix=fix)
        except SensorUnavailable as error:
            yield Finding(source="gpu-map", path=path, ok=False, why=error.cause, fix=error.fix)
        finally:
            files.close()


def look_at_engines(config: Config) -> Iterator[Finding]:
    """Each configured serving engine: whether its page can be read, which fields it tells, and, where an agent runs,
    whether that can count what it tells.
    """
    if not config.engine:
        return
    from wattribute.agent.engines import collector_of
    from wattribute.collectors.engines import finding

    health = _agents_health(config.agent.socket)
    for engine in config.engine:
        found = finding(collector_of(engine, SystemClock()))
        if not found.ok or health is None:
            yield found
            continue
        said = health.get(found.source)
        if said is None:
            why, fix = "the agent that runs doesn't know it", "start the agent again: it reads its configuration then"
        else:
            why, fix = ("", "") if said["up"] else (said["why"], said["fix"])
        yield replace(found, ok=False, why=f"{found.why}; {why}", fix=fix) if why else found


def _agents_health(path: str) -> dict[str, dict[str, Any]] | None:
    """The agent's sources by name; None where no agent answers."""
    try:
        return {one["source"]: one for one in Client(path).call("health")["sources"]}
    except WattributeError:
        return None


def _cpu_time(config: Config) -> "ProcessCollector | PortableProcessCollector":
    if sys.platform == "linux":
        from wattribute.collectors.process import ProcessCollector

        paths = config.paths
        cgroups = config.attribution.overhead_cgroups
        return ProcessCollector(Path(paths.proc), Path(paths.cgroup), SystemClock().monotonic_ns, cgroups, os.getpid())
    from wattribute.collectors.host import PortableProcessCollector

    return PortableProcessCollector(SystemClock().monotonic_ns, os.getpid())


def _modelled(config: Config, cpu: "ProcessCollector | PortableProcessCollector") -> Iterator[Finding]:
    if config.collectors.modelled == "off":
        yield _switched_off("modelled")
        return
    log = logging.getLogger("wattribute")
    log.addFilter(_nothing)  # what it would log of a missing sensor, that sensor's finding says
    try:
        sensors = open_sensors(config, SystemClock(), cpu)
    except SensorUnavailable:  # a required one, of which its own finding tells: the agent wouldn't start
        return
    finally:
        log.removeFilter(_nothing)
    for source in sensors.sources:
        source.close()
    for kind, method in sensors.method.items():
        if method.startswith("modelled"):
            yield Finding(
                source="modelled", path=kind, ok=True, why=method.removeprefix("modelled: "), quality="modelled"
            )


def _nothing(record: logging.LogRecord) -> bool:
    return False


def read_once(source: str, path: str, start: Callable[[], Collector]) -> Iterator[Finding]:
    """One Finding per energy counter of a collector that has no probe of its own."""
    try:
        collector = start()
        try:
            readings = collector.read()
        finally:
            collector.close()
    except SensorUnavailable as error:
        yield Finding(source=source, path=path, ok=False, why=error.cause, fix=error.fix)
        return
    for reading in readings:
        if isinstance(reading, EnergyReading):
            yield Finding(
                source=source,
                path=path,
                ok=True,
                why=f"{reading.domain.kind} {reading.domain.id}: readable",
                wraps_at_uj=reading.wraps_at_uj,
                value=f"{reading.energy_uj} uJ",
                quality=reading.quality,
            )


def look_at_state(state_dir: Path, user: str = "") -> Finding:
    """Whether the ledger can be kept: in the directory, or in one that can still be made; by `user` (agent.user)."""
    there = state_dir
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    owned = owned_by(there, user) if there.is_dir() else None
    if owned is False:
        fix = f"sudo chown -R {user}: {there}"
        return Finding(source="state", path=str(state_dir), ok=False, why=f"{there} isn't {user}'s", fix=fix)
    if owned or (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        free = shutil.disk_usage(there).free
        why = "writable" if there == state_dir else f"doesn't exist yet; {there} is writable"
        return Finding(source="state", path=str(state_dir), ok=True, why=why, value=f"{free / 2**30:.1f} GiB free")
    why = f"{there} isn't writable" if there.is_dir() else f"{there} isn't a directory"
    fix = f'sudo install -d -o "$USER" {state_dir}' if there.is_dir() else f"mv {there} {there}.old"
    return Finding(source="state", path=str(state_dir), ok=False, why=why, fix=fix)


def look_at_agent(path: str) -> Finding:
    """Whether an agent answers on the control socket. Jobs work without one: they are measured in-process."""
    if not os.path.lexists(path):
        why, fix = "no agent runs: jobs are measured in-process", "wattribute agent"
        return Finding(source="agent", path=path, ok=False, why=why, fix=fix)
    try:
        hello, health = Client(path).call("hello"), Client(path).call("health")
    except WattributeError as error:
        # Refused: nobody has the socket open any more, and a new agent takes it over. Else one is there, but hangs.
        dead = isinstance(error.__cause__, ConnectionRefusedError)
        fix = "wattribute agent" if dead else f"stop it (`sudo ss -lxp src {path}` names it) and start it again"
        return Finding(source="agent", path=path, ok=False, why=str(error), fix=fix)
    down = [f"it doesn't read {one['source']}: {one['why']}" for one in health.get("sources", ()) if not one["up"]]
    return Finding(
        source="agent",
        path=path,
        ok=True,
        why="; ".join([f"an agent answers, version {hello.get('version')}", *down]),
        resolution=f"every {hello.get('interval_s')} s",
    )


def look_at_port(listen: str, *, agent_runs: bool) -> Finding:
    """Whether /metrics can be served there, or already is."""
    host, port = listen_address(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen()
    except OSError as error:
        if agent_runs:
            return Finding(source="http", path=listen, ok=True, why="in use, while an agent runs: likely by it")
        other = "127.0.0.1:19918" if port == 19917 else "127.0.0.1:19917"
        fix = f"wattribute agent --listen {other}"
        whose = f"; `sudo ss -ltnp 'sport = :{port}'` names by whom" if error.errno == errno.EADDRINUSE else ""
        return Finding(source="http", path=listen, ok=False, why=f"{error.strerror or error}{whose}", fix=fix)
    return Finding(source="http", path=listen, ok=True, why="free for /metrics")
