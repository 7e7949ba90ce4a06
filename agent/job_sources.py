"""From the configuration to the sources of jobs that nobody registers; what isn't on this machine costs nothing."""

import logging
from collections.abc import Callable
from pathlib import Path

from wattribute.agent.config.rules import rules_of
from wattribute.agent.config.schema import Config
from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import JobSource
from wattribute.agent.core.model import Clock
from wattribute.agent.core.rules import Rule
from wattribute.agent.discovery import Discovery, Sightings
from wattribute.agent.finding import FoundJobs
from wattribute.agent.groups import Groups
from wattribute.agent.registry import CpuTime

log = logging.getLogger("wattribute")


def open_found_jobs(
    config: Config, clock: Clock, cpu: CpuTime, user_name: Callable[[int], str], *, inline: bool
) -> FoundJobs | None:
    """What finds jobs on this node; None without a cgroup tree, and then rules are refused: nothing could obey them."""
    from wattribute.collectors.cgroup import GroupUsage, Tree

    cgroup, proc = Path(config.paths.cgroup), Path(config.paths.proc)
    try:
        tree = Tree(cgroup, proc)
    except SensorUnavailable as error:
        if config.rule:
            raise
        log.info("jobs aren't found by their cgroups: %s", error)
        return None
    sightings = Sightings(tree)
    rules = rules_of(config)
    sources = _sources(config, sightings, rules, proc, user_name)
    discovery = Discovery(sources, rules, clock, user_name)
    groups = Groups(tree, GroupUsage(tree), cpu, config.attribution.overhead_cgroups, clock.monotonic_ns)
    return FoundJobs(discovery, sightings, groups, clock, inline=inline)


def _sources(
    config: Config, tree: Sightings, rules: list[Rule], proc: Path, user_name: Callable[[int], str]
) -> list[JobSource]:
    sources: list[JobSource] = []
    return sources
