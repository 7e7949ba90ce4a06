"""What a data sheet is made of: sections of sentences, tables and charts. Text is plain: who writes it out escapes it.

A chart never stands alone: the table beside it says the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.lineage import Lineage


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A sentence or two. `warning`: what a reader must not miss."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header; the columns in `numbers` are aligned at their right. The first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """One bar of a chart: a value in ng or uJ with its bounds, if they are known, and what is written at it."""

    name: str
    value: int
    text: str
    bounds: Bounded | None = None
    colour: str = "one"


@dataclass(frozen=True, slots=True)
class Stack:
    """Bars that begin where the last one ended, and their sum under them."""

    title: str
    steps: tuple[Step, ...]
    total: Step


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars of parts: each row's steps stand one after the other. `legend`: what a colour stands for."""

    title: str
    rows: tuple[tuple[str, str, tuple[Step, ...]], ...]
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """A provenance graph, drawn in layers from what came first to the product itself."""

    title: str
    lineage: Lineage
    product_id: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A sum over time (Unix ns, ng) beside the straight line of what was expected, from (start, 0) to (end, whole)."""

    title: str
    points: tuple[tuple[int, int], ...]
    expected: tuple[tuple[int, int], ...]
    whole_text: str


Block: TypeAlias = Paragraph | Table | Stack | Bars | Graph | Curve


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]
