"""What a script that was written for CodeCarbon asks for: its arguments, its environment, its configuration files.

Source: CodeCarbon 3.3, emissions_tracker.py (arguments) and core/config.py (files and environment).
"""

import configparser
import enum
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from wattribute.agent.process import here


class OutputMethod(enum.StrEnum):
    """Where CodeCarbon puts a run; here `csv` and `logger` have an effect."""

    CSV = "csv"
    API = "api"
    LOGGER = "logger"
    PROMETHEUS = "prometheus"
    LOGFIRE = "logfire"
    BOAMPS = "boamps"


ONLINE = (
    "project_name",
    "measure_power_secs",
    "api_call_interval",
    "api_endpoint",
    "api_key",
    "output_dir",
    "output_file",
    "output_methods",
    "save_to_file",
    "save_to_api",
    "save_to_logger",
    "logging_logger",
    "save_to_prometheus",
    "save_to_logfire",
    "prometheus_url",
    "output_handlers",
    "gpu_ids",
    "emissions_endpoint",
    "experiment_id",
    "experiment_name",
    "electricitymaps_api_token",
    "co2_signal_api_token",
    "tracking_mode",
    "log_level",
    "on_csv_write",
    "logger_preamble",
    "force_cpu_power",
    "force_ram_power",
    "pue",
    "wue",
    "force_carbon_intensity_g_co2e_kwh",
    "force_mode_cpu_load",
    "allow_multiple_runs",
    "rapl_include_dram",
    "rapl_prefer_psys",
    "metadata",
)
OFFLINE = ("country_iso_code", "region", "cloud_provider", "cloud_region", "country_2letter_iso_code")
DEFAULTS: Mapping[str, Any] = {
    "project_name": "codecarbon",
    "output_dir": ".",
    "output_file": "emissions.csv",
    "save_to_file": True,
    "on_csv_write": "append",
    "experiment_name": "base",
}
INSTEAD: Mapping[str, str] = {
    "api_endpoint": "the ledger keeps every job (wattribute report)",
    "api_key": "the ledger keeps every job (wattribute report)",
    "save_to_api": "the ledger keeps every job (wattribute report)",
    "emissions_endpoint": "use output_handlers, or read the agent's /metrics",
    "save_to_prometheus": "let Prometheus scrape the agent's /metrics",
    "prometheus_url": "let Prometheus scrape the agent's /metrics",
    "save_to_logfire": "use [otlp] endpoint of the agent",
    "gpu_ids": "a job is billed for the GPUs that it uses",
    "electricitymaps_api_token": 'set [carbon] provider = "electricitymaps" and ELECTRICITYMAPS_API_KEY',
    "co2_signal_api_token": 'set [carbon] provider = "electricitymaps" and ELECTRICITYMAPS_API_KEY',
    "force_cpu_power": "set [modelled] cpu_max_w",
    "force_ram_power": "set [modelled] dram_w_per_gib",
    "force_mode_cpu_load": 'set [collectors] rapl = "off"',
    "rapl_prefer_psys": "domains that contain each other are never added up here",
}
"""Arguments that are taken and have no effect, and what has it here."""
WITHOUT_EFFECT = frozenset(
    {
        "measure_power_secs",
        "api_call_interval",
        "allow_multiple_runs",
        "rapl_include_dram",
        "logger_preamble",
        "metadata",
    }
)
"""Arguments whose purpose doesn't exist here: energy is counted all the time, DRAM is a domain of its own."""
_OFF = ("false", "0", "no", "off", "none", "")


def signature(*parameters: str) -> inspect.Signature:
    """As help() and editors show it."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(name, kind, default=None) for name in parameters])


def bound(parameters: tuple[str, ...], args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name. One that isn't known is left out with a warning: a newer CodeCarbon may have it."""
    given = {**dict(zip(parameters, args, strict=False)), **named}
    for name in sorted(given.keys() - set(parameters)):
        here().say_once(f"codecarbon {name}", "EmissionsTracker: %s isn't known here and has no effect", name)
        del given[name]
    return given


def effective(
    given: Mapping[str, Any], environment: Mapping[str, str], folders: Sequence[Path], known: tuple[str, ...]
) -> dict[str, Any]:
    """Argument > CODECARBON_* > ./.codecarbon.config > ~/.codecarbon.config > default, as CodeCarbon has it."""
    values: dict[str, Any] = dict(DEFAULTS)
    for folder in folders:
        values.update(_of_file(folder / ".codecarbon.config", known))
    told = {key.lower().removeprefix("codecarbon_"): value for key, value in environment.items() if _is_theirs(key)}
    values.update({name: told[name] for name in known if name in told})
    values.update({name: value for name, value in given.items() if value is not None})
    for name, instead in INSTEAD.items():
        if is_set(values.get(name)):
            here().say_once(f"codecarbon {name}", "EmissionsTracker: %s has no effect here; %s", name, instead)
    return values


def folders() -> list[Path]:
    """Where configuration files may be, the one that counts most last: the home and the working directory."""
    found = []
    for find in (Path.home, Path.cwd):
        with suppress(OSError, RuntimeError):  # a uid without a home; a directory that was removed
            found.append(find())
    return found


def methods(asked: Any) -> set[str] | None:
    """`output_methods` by name, which may come as text with commas; None where they aren't set."""
    if asked is None:
        return None
    names = asked.split(",") if isinstance(asked, str) else asked
    return {str(getattr(name, "value", name)).strip() for name in names}


def is_set(value: Any) -> bool:
    """Whether a switch is on; it may come as text."""
    return value.strip().lower() not in _OFF if isinstance(value, str) else bool(value)


def number(values: Mapping[str, Any], name: str) -> float | None:
    """A number of 0 or more that may come as text; None, with a warning, for anything else."""
    value = values.get(name)
    if value is None or value == "":
        return None
    try:
        if math.isfinite(found := float(value)) and found >= 0:
            return found
    except (TypeError, ValueError):
        pass
    here().say_once(f"codecarbon {name} value", "EmissionsTracker: %s = %r can't be; it's ignored", name, value)
    return None


def _is_theirs(key: str) -> bool:
    return key.lower().startswith("codecarbon_")  # they take either case


def _of_file(path: Path, known: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
        section = dict(parser["codecarbon"]) if parser.has_section("codecarbon") else {}
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        here().say_once(f"codecarbon {path}", "%s can't be read: %s", path, error)
        section = {}
    return ((name, value) for name, value in section.items() if name in known)
