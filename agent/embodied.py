"""From what a machine is made of, or what the configuration says of it, to its embodied carbon.

An inventory meets the catalogue here: which item stands for what, how surely, and the [[embodied]] tables that say so.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from wattribute.agent.config.schema import Embodied
from wattribute.agent.core.bounds import NOTHING, Bounded
from wattribute.agent.core.catalogue import GENERIC, HOST_OF_EIGHT, Catalogue, Item, Sure, best, on_boards_of_eight
from wattribute.agent.core.hardware import Component
from wattribute.agent.core.units import YEAR_S, ng_from_kg

if TYPE_CHECKING:
    from wattribute.collectors.inventory import Disk, Inventory

LIFETIME_YEARS = 4
GIB, GB = 2**30, 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`count` of a catalogue item, which stand for what was found."""

    item: Item
    count: Fraction
    sure: Sure
    found: str

    @property
    def mass(self) -> Bounded:
        """All of it, in nanograms."""
        return _each(self.item).part(self.count.numerator, self.count.denominator)

    def component(self) -> Component:
        """As the core wants it, over the usual lifetime."""
        each = _each(self.item)
        return Component(
            each.central,
            LIFETIME_YEARS * YEAR_S,
            self.item.component == "gpu",
            self.count,
            low_ng=each.low,
            high_ng=each.high,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a machine's [[embodied]] tables could say, and what whoever pastes them should know."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    @property
    def mass(self) -> Bounded:
        """The sum, in nanograms."""
        return sum((part.mass for part in self.parts), NOTHING)


def propose(inventory: "Inventory", gpu_names: Sequence[str], catalogue: Catalogue) -> Proposal:
    """The catalogue's items for a machine, each thing in it counted once."""
    gpus = tuple(_gpus(gpu_names, catalogue))
    of_eight = on_boards_of_eight(catalogue, gpu_names)
    notes: list[str] = []
    if of_eight >= 8 or (of_eight and inventory.virtual):
        if of_eight < 8:
            notes.append(
                f"a virtual machine with {of_eight} of a host's eight GPUs: that part of the host is taken as its own"
            )
        host = catalogue[HOST_OF_EIGHT]
        found = f"the host of {of_eight} GPUs on boards of eight"
        return Proposal(
            parts=(Part(item=host, count=Fraction(of_eight, 8), sure="close", found=found), *gpus), notes=tuple(notes)
        )
    server, sure = best(catalogue, "server", inventory.server)
    if sure != "generic":
        whole = Part(item=server, count=Fraction(1), sure=sure, found=inventory.server)
        return Proposal(parts=(whole, *gpus))
    if not inventory.virtual and inventory.sockets and inventory.memory_bytes:
        return Proposal(parts=(*_parts(inventory, catalogue), *gpus), notes=tuple(_doubts(inventory)))
    if inventory.virtual:
        notes.append(
            "a virtual machine: which part of its host is its own isn't known here, so a whole generic server stands "
            "for it; set `count` to its part (0.25 for a quarter of the host)"
        )
    else:
        notes.append("what this machine is made of can't be read here: a generic server stands for it")
    whole = Part(item=server, count=Fraction(1), sure="generic", found=_seen(inventory))
    return Proposal(parts=(whole, *gpus), notes=tuple(notes))


def assumed(gpu_names: Sequence[str], catalogue: Catalogue) -> list[Part]:
    """What stands for a machine of which nobody has said anything: a generic server, and its GPUs by name."""
    server = catalogue[GENERIC["server"]]
    found = "nothing is configured"
    return [Part(item=server, count=Fraction(1), sure="generic", found=found), *_gpus(gpu_names, catalogue)]


def configured(tables: Sequence[Embodied], catalogue: Catalogue) -> list[Component]:
    """The components that [[embodied]] tables declare. Raises KeyError for an item that isn't in the catalogue."""
    return [_component(table, catalogue) for table in tables]


def toml(proposal: Proposal) -> str:
    """The proposal as [[embodied]] tables to paste into a configuration."""
    lines = [
        "# Each `item` stands for the catalogue's figure; where you know better, write kgco2e in its place (with",
        "# kgco2e_low and kgco2e_high), and the lifetime over which you write it off.",
        *(f"# {note}" for note in proposal.notes),
    ]
    for part in proposal.parts:
        item = part.item
        unit = " per GB" if item.unit == "GB" else ""
        lines += [
            "",
            "[[embodied]]",
            f'component = "{item.component}"',
            f'item = "{item.id}"  # {part.found}: {item.central:g} kg{unit} ({item.low:g} to {item.high:g})',
            f"count = {float(part.count):g}" if part.count.denominator > 1 else f"count = {part.count}",
            f"lifetime_years = {LIFETIME_YEARS}",
        ]
    return "\n".join(lines) + "\n"


def _component(table: Embodied, catalogue: Catalogue) -> Component:
    if table.item:
        each = _each(catalogue[table.item])
        central_ng, low_ng, high_ng = each.central, each.low, each.high
    else:
        central_ng = ng_from_kg(table.kgco2e or 0)
        low_ng = central_ng if table.kgco2e_low is None else ng_from_kg(table.kgco2e_low)
        high_ng = central_ng if table.kgco2e_high is None else ng_from_kg(table.kgco2e_high)
    return Component(
        central_ng,
        max(1, round(table.lifetime_years * YEAR_S)),
        table.component == "gpu",
        Fraction(str(table.count)),
        None if table.utilisation is None else Fraction(str(table.utilisation)),
        low_ng,
        high_ng,
    )


def _each(item: Item) -> Bounded:
    return Bounded(ng_from_kg(item.low), ng_from_kg(item.central), ng_from_kg(item.high))


def _gpus(names: Sequence[str], catalogue: Catalogue) -> Iterator[Part]:
    for name, count in Counter(names).items():
        item, sure = best(catalogue, "gpu", name)
        yield Part(item=item, count=Fraction(count), sure=sure, found=f"{count} x {_plain(name)}")


def _parts(inventory: "Inventory", catalogue: Catalogue) -> Iterator[Part]:
    chassis = catalogue[GENERIC["chassis"]]
    yield Part(item=chassis, count=Fraction(1), sure="generic", found=inventory.server or "a server")
    cpu, sure = best(catalogue, "cpu", inventory.cpu_model)
    found = f"{inventory.sockets} x {inventory.cpu_model or 'a CPU without a name'}"
    yield Part(item=cpu, count=Fraction(inventory.sockets), sure=sure, found=found)
    gib = max(1, round(inventory.memory_bytes / GIB))
    yield Part(item=catalogue[GENERIC["dram"]], count=Fraction(gib), sure="generic", found=f"{gib:,} GB of memory")
    flash = [disk for disk in inventory.disks if not disk.rotational]
    if flash:
        size_gb = max(1, round(sum(disk.size_bytes for disk in flash) / GB))
        found = f"{_models(flash)}, {size_gb:,} GB"
        yield Part(item=catalogue[GENERIC["ssd"]], count=Fraction(size_gb), sure="generic", found=found)
    hard = [disk for disk in inventory.disks if disk.rotational]
    if hard:
        yield Part(item=catalogue[GENERIC["hdd"]], count=Fraction(len(hard)), sure="generic", found=_models(hard))


def _seen(inventory: "Inventory") -> str:
    what = inventory.server or ("a virtual machine" if inventory.virtual else "a machine")
    cpus = inventory.cpu_model and f"{max(1, inventory.sockets)} x {inventory.cpu_model}"
    memory = inventory.memory_bytes and f"{round(inventory.memory_bytes / GIB):,} GB of memory"
    return ", ".join(str(one) for one in (what, cpus, memory) if one)


def _models(disks: "Sequence[Disk]") -> str:
    counted = Counter(disk.model or "disk" for disk in disks)
    return ", ".join(f"{count} x {model}" for model, count in counted.items())


def _doubts(inventory: "Inventory") -> Iterator[str]:
    if not inventory.disks:
        yield "no disk of its own was found: if it has some, add them"
    elif any("raid" in disk.model.lower() or "perc" in disk.model.lower() for disk in inventory.disks):
        yield "a RAID controller shows volumes, not disks: count the disks behind it"


def _plain(name: str) -> str:
    """Fit for a comment: the driver writes the name, and a line break in it would be configuration."""
    return "".join(filter(str.isprintable, name)) or "a GPU without a name"
