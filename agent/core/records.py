"""Jobs and nodes as closed rows tell of them: what a report, an EPC and an export are made from.

Integers are microjoules, nanograms CO2e and nanoseconds. Corrections are in the terms already.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from wattribute.agent.core.model import Role, Term

Source = Literal["agent", "in-process", "codecarbon"]
SOURCES: tuple[Source, ...] = get_args(Source)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job over all the nodes that it ran on, and over all its windows in the time asked for.

    `energy_uj`: (domain, share, quality) -> uJ. `taxes_ng`: (payee product, term) -> ng. `corrections_ng` is what of
    the terms was booked after the fact; `revision` is 1 plus how many times that happened. `provisional`: some of the
    carbon intensity isn't final yet. `slurm` is what joins a job of Slurm's to sacct, by label.
    """

    id: str
    product_id: str = "default"
    uses: tuple[str, ...] = ()
    role: Role = "use"
    phase: str = ""
    user: str = ""
    weight_ppm: int = 1_000_000
    nodes: tuple[str, ...] = ()
    expected_nodes: int = 1
    started_unix_ns: int = 0
    ended_unix_ns: int | None = None
    energy_uj: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    terms_ng: Mapping[Term, int] = field(default_factory=dict)
    taxes_ng: Mapping[tuple[str, Term], int] = field(default_factory=dict)
    corrections_ng: Mapping[Term, int] = field(default_factory=dict)
    cpu_ns: int = 0
    sm_ns: int = 0
    revision: int = 1
    provisional: bool = False
    source: Source = "agent"
    slurm: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """What one node used, and what of it nobody paid.

    `energy_uj`: (domain, quality) -> uJ. `unattributed_uj`: (domain, reason) -> uJ. `terms_ng`: operation, cooling and
    hardware of everything. `unattributed_ng`: (reason, term) -> ng; corrections of it have a reason of their own,
    `correction`. `corrections_ng`: all of them, the jobs' too.
    """

    id: str
    energy_uj: Mapping[tuple[str, str], int] = field(default_factory=dict)
    unattributed_uj: Mapping[tuple[str, str], int] = field(default_factory=dict)
    terms_ng: Mapping[Term, int] = field(default_factory=dict)
    unattributed_ng: Mapping[tuple[str, Term], int] = field(default_factory=dict)
    corrections_ng: Mapping[Term, int] = field(default_factory=dict)
