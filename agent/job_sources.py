"""From the configuration to the sources of jobs that nobody registers; what isn't on this machine costs nothing."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wattribute.agent.config.rules import rules_of
from wattribute.agent.config.schema import Config
from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import CgroupTree, JobSource
from wattribute.agent.core.model import Clock
from wattribute.agent.core.rules import Rule
from wattribute.agent.discovery import Discovery, Sightings
from wattribute.agent.finding import FoundJobs
from wattribute.agent.groups import Groups
from wattribute.agent.identity import fit
from wattribute.agent.live import CpuTime

if TYPE_CHECKING:
    from wattribute.collectors.kubernetes import Kubelet

log = logging.getLogger("wattribute")


def open_found_jobs(
    config: Config, clock: Clock, cpu: CpuTime, user_name: Callable[[int], str], *, inline: bool
) -> FoundJobs | None:
    """What finds jobs on this node; None without a cgroup tree.

    Raises SensorUnavailable where there is none and rules are configured: nothing could obey them.
    """
    from wattribute.collectors.cgroup import GroupUsage, Tree

    try:
        tree = Tree(Path(config.paths.cgroup), Path(config.paths.proc))
    except SensorUnavailable as error:
        if config.rule:
            raise
        log.info("jobs aren't found by their cgroups: %s", error)
        return None
    sightings = Sightings(tree)
    rules = rules_of(config)
    sources = job_sources(config, sightings, rules, user_name, clock)
    discovery = Discovery(sources, sightings, rules, clock, user_name)
    groups = Groups(tree, GroupUsage(tree), cpu, config.attribution.overhead_cgroups, clock.monotonic_ns)
    return FoundJobs(discovery, sightings, groups, clock, inline=inline)


def job_sources(
    config: Config, tree: CgroupTree, rules: Sequence[Rule], user_name: Callable[[int], str], clock: Clock
) -> list[JobSource]:
    """What the configuration has looked for, in the order in which they count."""
    from wattribute.collectors.environ import ProcessFacts

    facts = ProcessFacts(config.paths.proc)
    sources: list[JobSource] = []
    own_group = tree.group_of(os.getpid())
    if config.jobs.slurm == "auto":
        from wattribute.collectors.slurm import SlurmJobs
        from wattribute.collectors.slurm_prolog import PrologFacts

        told = PrologFacts(config.jobs.slurm_dir).told
        sources.append(SlurmJobs(tree, facts.environment, uid_of=facts.owner, title=facts.title, fit=fit, prolog=told))
    if config.jobs.kubernetes == "auto":
        from wattribute.collectors.kubernetes import KubernetesJobs, PodLabels

        own = config.kubernetes
        labels = PodLabels(own.job_label, own.product_label, own.uses_label, own.phase_label)
        sources.append(
            KubernetesJobs(tree, kubelet_of(config), labels, own_group=own_group, clock=clock.monotonic_ns, fit=fit)
        )
    if config.jobs.containers == "auto":
        from wattribute.collectors.containers import ContainerJobs

        sources.append(ContainerJobs(tree, fit=fit, own_group=own_group))
    if rules:
        from wattribute.collectors.named_cgroups import NamedCgroups

        sources.append(NamedCgroups(tree, rules, user_name=user_name, uid_of=facts.owner, fit=fit))
    return sources


def kubelet_of(config: Config) -> "Kubelet":
    """This node's kubelet. Raises ConfigError where its address is none."""
    from wattribute.collectors.kubernetes import Kubelet

    own = config.kubernetes
    return Kubelet(own.kubelet, token_file=own.token_file, ca_file=own.ca_file, proc=config.paths.proc)
