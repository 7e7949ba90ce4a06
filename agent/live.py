"""A job as the live table has it, and what tells the table of CPU time: process trees and cgroups."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, Protocol

from wattribute.agent.core.claims import Entry
from wattribute.agent.core.found import FoundJob
from wattribute.agent.core.model import GroupId, ProcessId, Root, UsageReading
from wattribute.agent.core.trees import Member

Age = Literal["old", "late", "new"]
"""When a found cgroup was made: before the agent looked, some ticks ago, or since the last tick."""

OVERFLOW = "_overflow"
RETIRED = "_retired"


class CpuTime(Protocol):
    """What the process collector offers besides `read`: cumulative CPU time of watched process trees, in ns.

    `part` leaves a process of a tree, with what descends from it, to whoever bills it elsewhere (its new cgroup).
    """

    def read(self) -> list[UsageReading]: ...
    def identify(self, pid: int) -> ProcessId | None: ...
    def watch(self, root: ProcessId, since_ns: int | None = None, reaped_ns: int | None = None) -> None: ...
    def unwatch(self, root: ProcessId) -> None: ...
    def busy_ns(self, root: ProcessId) -> int: ...
    def trees_ns(self) -> dict[ProcessId, int]: ...
    def recall(self, pid: int) -> ProcessId | None: ...
    def settle_reaped(self, root: ProcessId, reaped_ns: int) -> bool: ...
    def root_of(self, pid: int) -> ProcessId | None: ...
    def gone(self) -> list[ProcessId]: ...
    def members(self) -> Iterable[Member]: ...
    def part(self, process: ProcessId) -> None: ...
    def node_ns(self) -> int: ...
    def close(self) -> None: ...
    @property
    def node_method(self) -> str: ...


class GroupTime(Protocol):
    """What `Groups` offers the registry: watched cgroups, and the process trees that live in them."""

    def watch(self, group: GroupId, since_ns: int | None = None) -> int | None: ...
    def unwatch(self, group: GroupId) -> None: ...
    def enter(self, root: ProcessId, billed_ns: int = 0) -> GroupId | None: ...
    def leave(self, root: ProcessId, billed_ns: int) -> None: ...
    def around(self, group: GroupId) -> GroupId | None: ...
    def lodging_ns(self, group: GroupId) -> int: ...
    def lodgers(self, group: GroupId) -> list[Root]: ...
    def own_ns(self, group: GroupId) -> int: ...


@dataclass(slots=True)
class LiveJob:
    """A job that runs or is held: its totals, its user, its members (token -> root process or cgroup)."""

    entry: Entry
    uid: int
    members: dict[str, Root] = field(default_factory=dict)
    member_count: int = 0
    parents: dict[str, str] = field(default_factory=dict)  # token -> the job it was opened inside
    notes: dict[str, None] = field(default_factory=dict)
    overlapped: bool = False
    folded: bool = False
    known_meta: bool = False  # the ledger has its present description
    described: tuple[int, int] = (0, 0)  # with so many taxes and GPUs
    gaps: list[dict[str, str | None]] = field(default_factory=list)  # stretches in which nobody measured it
    folded_values: list[int] | None = None  # what of it is in a fold already, from an earlier segment
    unattributed_uj: int = 0  # the node's, when it began
    found: dict[GroupId, FoundJob] = field(default_factory=dict)  # what it was found by, without being told
    corrections_ng: dict[tuple[str, str], int] = field(default_factory=dict)  # (product, term) -> what came later
    corrected: int = 0  # how many times that happened
    metered: list[int] | None = None  # what of it is in its product's requests already, or idle between them: a bill
    reopened: int = 0  # how many times a term was booked after its end
    band: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))  # how far off the intensities it was charged at may be

    @property
    def running(self) -> bool:
        return self.entry.ended_ns is None

    @property
    def revision(self) -> int:
        """Of its receipt: 1 plus how often something was added after the end."""
        return 1 + self.corrected + self.reopened

    def widen(self, band: tuple[Fraction, Fraction]) -> None:
        """It is charged at an intensity that may be as far off as this."""
        self.band = min(self.band[0], band[0]), max(self.band[1], band[1])

    def correct(self, product_id: str, term: str, delta_ng: int) -> None:
        """Carbon turned out otherwise than it was booked: the receipt changes, what is exported doesn't."""
        key = (product_id, term)
        self.corrections_ng[key] = self.corrections_ng.get(key, 0) + delta_ng

    def joins(self) -> tuple[tuple[Mapping[str, str], ...], tuple[Mapping[str, str], ...]]:
        """What joins it to Slurm's and to Kubernetes' own series; a session inside Slurm tells it by its labels."""
        slurm = [row for found in self.found.values() if found.origin == "slurm" for row in found.info]
        if not slurm and "slurm_job_id" in self.entry.job.labels:
            slurm = [self.entry.job.labels]
        return tuple(slurm), tuple(
            row for found in self.found.values() if found.origin == "kubernetes" for row in found.info
        )
