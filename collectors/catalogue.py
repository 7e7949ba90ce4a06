"""Reads the table of what hardware costs to make, embodied.toml beside this file: kg CO2e with bounds and sources."""

import tomllib
from functools import cache
from pathlib import Path

from wattribute.agent.core.catalogue import Catalogue, Item

TABLE = Path(__file__).with_name("embodied.toml")


@cache
def catalogue(path: Path = TABLE) -> Catalogue:
    """All items by id, read once."""
    with path.open("rb") as file:
        return {name: Item(id=name, **entry) for name, entry in tomllib.load(file).items()}
