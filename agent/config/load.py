"""Layers of configuration: flag > WATTRIBUTE_* > file > default, each value with where it came from."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from wattribute.agent.config.check import INTENSITIES, nearest, problems
from wattribute.agent.config.check import warnings as warnings_of
from wattribute.agent.config.decode import LISTS, SECTIONS, faults, keys_of
from wattribute.agent.config.schema import Config
from wattribute.agent.core.errors import ConfigError
from wattribute.agent.identity import user_state_dir

SYSTEM_FILE = Path("/etc/wattribute/wattribute.toml")
PREFIX = "WATTRIBUTE_"
DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The effective configuration. `origins` maps every dotted key (`agent.interval_s`, `product`) to its source."""

    config: Config
    origins: Mapping[str, str]
    path: Path | None = None
    warnings: tuple[str, ...] = ()

    def is_default(self, key: str) -> bool:
        """Whether nobody set the key: what is assumed is noted wherever it is shown."""
        return self.origins.get(key, DEFAULT) == DEFAULT


@dataclass(slots=True)
class _Layers:
    """Raw values from the lowest layer up; a higher one replaces a whole key, and a whole way to state intensity."""

    raw: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def put(self, layer: Mapping[str, Any], origin: Mapping[str, str] | str) -> None:
        stated = layer.get("carbon", {})
        if any(name in stated for name in INTENSITIES):
            for name in INTENSITIES:
                self.raw.get("carbon", {}).pop(name, None)
                self.origins.pop(f"carbon.{name}", None)
        for section, values in layer.items():
            if section in LISTS:
                self.raw[section] = values
                self.origins[section] = origin if isinstance(origin, str) else origin[section]
                continue
            for key, value in values.items():
                name = f"{section}.{key}"
                self.raw.setdefault(section, {})[key] = value
                self.origins[name] = origin if isinstance(origin, str) else origin[name]


def load(
    path: Path | None,
    env: Mapping[str, str],
    flags: Mapping[str, object],
    *,
    system_file: Path = SYSTEM_FILE,
    uid: int | None = None,
) -> Loaded:
    """Read, merge and check all layers. Raises ConfigError, which names the source, the key and the nearest valid one.

    `path` is --config; without it WATTRIBUTE_CONFIG, then `system_file` if it exists. `flags` maps dotted keys to
    values, None for a flag that wasn't given. `uid` decides the default places (0: root's; default: the process's).
    """
    warnings: list[str] = []
    layers = _Layers()
    layers.put(_default_places(env, _effective_uid() if uid is None else uid), DEFAULT)
    source = path or (Path(env["WATTRIBUTE_CONFIG"]) if env.get("WATTRIBUTE_CONFIG") else None)
    if source is None and os.access(system_file, os.R_OK):
        source = system_file
    elif source is None and system_file.exists():
        warnings.append(f"{system_file} can't be read by this user: its settings are not in force here")
    if source is not None:
        layers.put(_read_file(source), f"file {source}")
    layers.put(*_read_environment(env))
    layers.put(*_read_flags(flags))
    config = msgspec.convert(_with_one_intensity(layers.raw), Config)
    wrong = problems(config)
    if wrong:
        raise ConfigError("\n".join(f"{_blame(layers.origins.get(key, DEFAULT))}{text}" for key, text in wrong))
    warnings.extend(warnings_of(config))
    return Loaded(config=config, origins=_all_origins(layers.origins), path=source, warnings=tuple(warnings))


def _effective_uid() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else -1


def _default_places(env: Mapping[str, str], uid: int) -> dict[str, Any]:
    """Root's places are the schema's; everybody else gets private ones, by XDG."""
    if uid == 0:
        return {}
    own = user_state_dir(env)
    if own:
        state_dir = Path(own)
    else:
        import tempfile  # 5 ms for the few who have no home

        state_dir = Path(tempfile.gettempdir(), f"wattribute-{uid}")
    runtime = env.get("XDG_RUNTIME_DIR")
    # Without a runtime directory the socket stays among the user's own files: a shared /tmp could be squatted.
    socket = Path(runtime, "wattribute", "agent.sock") if runtime else state_dir / "agent.sock"
    return {"agent": {"socket": str(socket), "state_dir": str(state_dir)}}


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode()
        raw = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    wrong = faults(raw)
    if wrong:
        raise ConfigError("\n".join(f"{path}: {text}" for text in wrong))
    return raw


def _read_environment(env: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    layer: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for variable in sorted(env):
        if not variable.startswith(PREFIX):
            continue
        words = variable.removeprefix(PREFIX).lower()
        section, separator, key = words.partition("__")
        if not separator and section not in LISTS:
            _refuse_single_underscore(variable, words)
            continue  # WATTRIBUTE_CONFIG, WATTRIBUTE_JOB_ID and the like
        if separator and key not in keys_of(section):
            raise ConfigError(f"{variable}: unknown key{_meant_variable(words)}")
        value = _parse(section, key, env[variable], variable)
        if key:
            layer.setdefault(section, {})[key] = value
            origins[f"{section}.{key}"] = variable
        else:
            layer[section] = value
            origins[section] = variable
    return layer, origins


def _refuse_single_underscore(variable: str, words: str) -> None:
    for section in SECTIONS:
        for key in keys_of(section):
            if words == f"{section}_{key}":
                raise ConfigError(f"{variable}: unknown; did you mean {PREFIX}{section.upper()}__{key.upper()}?")


def _meant_variable(words: str) -> str:
    known = [f"{section}__{key}" for section in SECTIONS for key in keys_of(section)] + list(LISTS)
    meant = nearest(words, known)
    return f"; did you mean {PREFIX}{meant.upper()}?" if meant else ""


def _parse(section: str, key: str, text: str, variable: str) -> Any:
    """A TOML value where it fits the key, else the text itself (`node-7`, `127.0.0.1:80`, a node called 12)."""
    wrong: list[str] = []
    for value in (*_toml_values(text), text):
        found = faults({section: {key: value} if key else value})
        if not found:
            return value
        wrong = wrong or found
    raise ConfigError("\n".join(f"{variable}: {reason}" for reason in wrong))


def _toml_values(text: str) -> list[Any]:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return []
    return [parsed["value"]] if len(parsed) == 1 else []


def _read_flags(flags: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, str]]:
    layer: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, value in flags.items():
        if value is None:
            continue
        section, _, key = name.partition(".")
        option = "--" + key.replace("_", "-")
        wrong = faults({section: {key: value}})
        if wrong:
            raise ConfigError("\n".join(f"{option}: {text}" for text in wrong))
        layer.setdefault(section, {})[key] = value
        origins[name] = f"flag {option}"
    return layer, origins


def _with_one_intensity(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The default of 480 g/kWh steps back where another way is stated."""
    carbon = raw.get("carbon", {})
    if "intensity_g_per_kwh" in carbon or not any(name in carbon for name in INTENSITIES):
        return raw
    return {**raw, "carbon": {"intensity_g_per_kwh": None, **carbon}}


def _all_origins(known: Mapping[str, str]) -> dict[str, str]:
    names = [f"{section}.{key}" for section in SECTIONS for key in keys_of(section)] + list(LISTS)
    return {name: known.get(name, DEFAULT) for name in names}


def _blame(origin: str) -> str:
    """What an error message begins with: the file, the variable or the option; nothing where nobody set the key."""
    return "" if origin == DEFAULT else origin.removeprefix("file ").removeprefix("flag ") + ": "
