"""Configured rules: which job and product something belongs to that was found without being told.

Patterns are those of a shell (fnmatch), where `*` crosses `/`. A user may write his own job's labels (Slurm's come
from his environment, a container's from whoever started it): a rule that gives a role by label alone trusts him.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from wattribute.agent.core.found import FoundJob
from wattribute.agent.core.model import Role

WILD = re.compile(r"[*?[]")
_SCOPED_CONTAINER = re.compile(r".*?([0-9a-f]{64})\.scope")
_USERS = "/user.slice/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is looked at (all that is given must fit), and what a job gets that fits ("": stays as it was found)."""

    cgroup: str = ""
    user: str = ""
    unit: str = ""
    label: Mapping[str, str] = field(default_factory=dict)
    job: str = ""
    product: str = ""
    role: Role = "use"
    phase: str = ""


def problem(rule: Rule) -> str:
    """What is wrong with a rule, in words that name the key; "" where nothing is."""
    if not (rule.cgroup or rule.user or rule.unit or rule.label):
        return "match is empty: give cgroup, user, unit or label"
    if rule.role != "use" and not rule.product:
        return f'role = "{rule.role}" needs a product'
    if rule.cgroup and rule.cgroup[0] != "/" and not WILD.match(rule.cgroup):
        return f'cgroup = "{rule.cgroup}" fits nothing: paths start with /'
    return ""


def fits(rule: Rule, found: FoundJob, user_name: str) -> bool:
    """Whether all that the rule gives is so: user by name or by uid in decimal. One that gives nothing never fits."""
    return (
        bool(rule.cgroup or rule.user or rule.unit or rule.label)
        and (not rule.cgroup or fits_path(rule.cgroup, found.group.path))
        and (not rule.user or rule.user in (user_name, str(found.uid)))
        and (not rule.unit or fits_unit(rule, found.unit, found.group.path))
        and all(key in found.labels and fnmatchcase(found.labels[key], value) for key, value in rule.label.items())
    )


def apply(rules: Sequence[Rule], found: FoundJob, user_name: str) -> FoundJob:
    """The job as the first rule that fits would have it. Applying it again changes nothing."""
    for rule in rules:
        if fits(rule, found, user_name):
            return replace(
                found,
                job_id=rule.job or found.job_id,
                product_id=rule.product or found.product_id,
                role=rule.role if rule.product else found.role,
                phase=rule.phase or found.phase,
            )
    return found


def fits_path(pattern: str, path: str) -> bool:
    """Whether a cgroup's path fits, as it is or as it would be without systemd."""
    return fnmatchcase(path, pattern) or fnmatchcase(plain(path), pattern)


def fits_unit(rule: Rule, unit: str, path: str) -> bool:
    """Whether a systemd unit fits. Users name their own units as they like: those need a user or a cgroup as well."""
    return fnmatchcase(unit, rule.unit) and (bool(rule.user or rule.cgroup) or not path.startswith(_USERS))


def plain(path: str) -> str:
    """A cgroup's path as the cgroupfs driver would name it, so that one pattern fits both drivers of a kubelet.

    `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-ID.scope` is
    `/kubepods/burstable/pod1-2/ID`: a slice's name repeats those above it (systemd.slice(5)).
    """
    parts: list[str] = []
    above = ""
    for part in path.split("/"):
        if part.endswith(".slice"):
            whole = part.removesuffix(".slice")
            name = whole.removeprefix(f"{above}-") if above else whole
            above = whole
            parts.append(name.replace("_", "-") if name.startswith("pod") else name)
        else:
            container = _SCOPED_CONTAINER.fullmatch(part)
            parts.append(container[1] if container else part)
    return "/".join(parts)


def unit_of(path: str) -> str:
    """The innermost systemd service or scope on a cgroup's path; "" outside of any."""
    return next((part for part in reversed(path.split("/")) if part.endswith((".service", ".scope"))), "")
