"""Configuration: TOML, environment and flags become one frozen Config (contract, section 4)."""

from wattribute.agent.config.check import check_exposure, listen_address
from wattribute.agent.config.load import SYSTEM_FILE, Loaded, load
from wattribute.agent.config.schema import (
    Agent,
    Attribution,
    Carbon,
    Collectors,
    Config,
    Embodied,
    Export,
    Ledger,
    Match,
    Modelled,
    Parent,
    Paths,
    Product,
    Rule,
    Web,
)

__all__ = [
    "SYSTEM_FILE",
    "Agent",
    "Attribution",
    "Carbon",
    "Collectors",
    "Config",
    "Embodied",
    "Export",
    "Ledger",
    "Loaded",
    "Match",
    "Modelled",
    "Parent",
    "Paths",
    "Product",
    "Rule",
    "Web",
    "check_exposure",
    "listen_address",
    "load",
]
