"""An ex-ante estimate for people and for programs; it says on every output that nothing was measured."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import click

from wattribute.agent.cli import print_table
from wattribute.agent.cli.amounts import floats, shown, spread
from wattribute.agent.core.estimate import co2e_kg
from wattribute.agent.core.ranges import NIL, Range

SCHEMA = "wattribute.estimate/1"
BASIS = "estimate, not measured"


@dataclass(frozen=True, slots=True)
class Assumed:
    """A figure that an estimate stands on, and where it is from."""

    value: Range
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What something will use. `parts_kwh` add up to the energy, if there are any; `figures` are (value, unit)."""

    kind: str
    energy_kwh: Range
    intensity: Assumed
    parts_kwh: Mapping[str, Range] = field(default_factory=dict)
    figures: Mapping[str, tuple[Range, str]] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    compared: tuple[str, Fraction] | None = None

    @property
    def co2e_kg(self) -> Range:
        """Its carbon."""
        return co2e_kg(self.energy_kwh, self.intensity.value)

    def say(self, as_json: bool) -> None:
        """Print it."""
        if as_json:
            click.echo(json.dumps(self.document(), indent=2, ensure_ascii=False))
        else:
            self.show(shutil.get_terminal_size((100, 24)).columns)

    def show(self, width: int) -> None:
        """Print it for people."""
        click.echo(f"{BASIS.capitalize()}: {self.kind}\n")
        rows = [(name, f"{spread(value)} {unit}".rstrip()) for name, (value, unit) in self.figures.items()]
        for name, part in self.parts_kwh.items():
            share = part.central / self.energy_kwh.central * 100 if self.energy_kwh.central else Fraction(0)
            rows.append((name, f"{spread(part)} kWh ({float(share):.1f} %)"))
        rows.append(("energy", f"{spread(self.energy_kwh)} kWh"))
        rows.append(("carbon", _mass(self.co2e_kg)))
        if self.compared is not None:
            words, deviation = self.compared
            rows.append(("against", f"{words}: {float(deviation) * 100:+.1f} %"))
        print_table(rows, width=width)
        click.echo("\nIt assumes")
        for line in self._assumptions():
            print_table([("-", line)], width=width)

    def document(self) -> dict[str, Any]:
        """It for programs."""
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "basis": BASIS,
            "energy_kwh": floats(self.energy_kwh),
            "co2e_kg": floats(self.co2e_kg),
            "parts_kwh": {name: floats(part) for name, part in self.parts_kwh.items()},
            "figures": {name: {**floats(value), "unit": unit} for name, (value, unit) in self.figures.items()},
            "intensity_g_per_kwh": floats(self.intensity.value),
            "deviation": None if self.compared is None else float(self.compared[1]),
            "assumptions": list(self._assumptions()),
        }

    def _assumptions(self) -> tuple[str, ...]:
        return (*self.assumptions, f"carbon intensity {spread(self.intensity.value)} g/kWh: {self.intensity.words}")


def _mass(mass_kg: Range) -> str:
    """Kilograms, and tonnes from a hundred on, grams below one; all of a range in one unit."""
    if mass_kg.central >= 100_000:
        return f"{spread(mass_kg / 1000)} t CO2e ({shown(mass_kg.central)} kg)"
    if mass_kg != NIL and mass_kg.central < 1:
        return f"{spread(mass_kg * 1000)} g CO2e ({shown(mass_kg.central)} kg)"
    return f"{spread(mass_kg)} kg CO2e"
