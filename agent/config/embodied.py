"""What can be wrong with [[embodied]] tables whose single values are fine."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from wattribute.agent.config.schema import Embodied
from wattribute.agent.core.catalogue import Catalogue
from wattribute.collectors.catalogue import catalogue

MOST_KG_A_YEAR = 1_000_000  # a rack of the largest machines, written off in a year, comes nowhere near
_HINT = "`wattribute doctor --embodied` lists what fits this machine"


def problems(tables: Sequence[Embodied], nearest: Callable[[str, Iterable[str]], str]) -> Iterator[tuple[str, str]]:
    """(key, sentence) for each; `nearest` gives the known word that was probably meant."""
    items = catalogue()
    for number, table in enumerate(tables):
        whose = _of_item(table, items, nearest) if table.item else _of_figures(table)
        for why in (*whose, *_plausible(table, items)):
            yield "embodied", f"embodied[{number}]{why}"


def _of_item(table: Embodied, items: Catalogue, nearest: Callable[[str, Iterable[str]], str]) -> Iterator[str]:
    given = [name for name in ("kgco2e", "kgco2e_low", "kgco2e_high") if getattr(table, name) is not None]
    if given:
        yield f": item brings its own figures; leave out {' and '.join(given)}, or item"
    item = items.get(table.item)
    if item is None:
        meant = nearest(table.item, [one for one in items if items[one].component == table.component])
        hint = f'did you mean "{meant}"?' if meant else _HINT
        yield f'.item = "{table.item}" isn\'t in the catalogue; {hint}'
    elif item.component != table.component:
        yield f'.item = "{table.item}" is no {table.component}: write component = "{item.component}"'


def _of_figures(table: Embodied) -> Iterator[str]:
    if table.kgco2e is None:
        yield f': give item = "..." ({_HINT}), or kgco2e'
        return
    if table.kgco2e_low is not None and table.kgco2e_low > table.kgco2e:
        yield f".kgco2e_low ({table.kgco2e_low:g}) is above kgco2e ({table.kgco2e:g})"
    if table.kgco2e_high is not None and table.kgco2e_high < table.kgco2e:
        yield f".kgco2e_high ({table.kgco2e_high:g}) is below kgco2e ({table.kgco2e:g})"
    if table.kgco2e == 0 and table.kgco2e_high:
        yield ".kgco2e is 0, which no bounds can be told of: give the likeliest figure"


def _plausible(table: Embodied, items: Catalogue) -> Iterator[str]:
    """Grams for kilograms, or a lifetime of a moment, would swamp every other number."""
    item = items.get(table.item)
    each_kg = max(table.kgco2e or 0, table.kgco2e_high or 0, 0 if item is None else item.high)
    yearly_kg = each_kg * table.count / table.lifetime_years / (table.utilisation or 1)
    if yearly_kg > MOST_KG_A_YEAR:
        yield f" comes to {yearly_kg:.3g} kg a year, too much for one node: kgco2e is in kg, lifetime_years in years"
