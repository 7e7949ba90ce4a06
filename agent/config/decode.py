"""One layer of raw TOML values becomes checked values, or a list of sentences that say what was probably meant."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from wattribute.agent.config.check import nearest
from wattribute.agent.config.schema import Config

SECTIONS = tuple(field.name for field in msgspec.structs.fields(Config))
LISTS = ("rule", "embodied", "engine", "product")  # may come several times: replaced as a whole by a higher layer
PLAIN_NAMES = {
    "`float`": "a number",
    "`int`": "a whole number",
    "`str`": "a string",
    "`bool`": "true or false",
    "`object`": "a table",
    "`array`": "a list",
    "`null`": "nothing",
}
_WHERE = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`\$\.?(?P<path>.*)`)?", re.DOTALL)


def keys_of(section: str) -> tuple[str, ...]:
    """The keys of one plain table; none for an unknown one or a list of tables."""
    if section not in SECTIONS or section in LISTS:
        return ()
    return tuple(type(getattr(Config(), section)).__struct_fields__)


def faults(raw: Mapping[str, Any]) -> list[str]:
    """What is wrong with the single values of one layer, each a sentence that names the key; empty if it converts."""
    try:
        msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        # The walk knows what was meant; types and bounds are msgspec's own words.
        return list(_walk(raw)) or [_plain(str(error), raw)]
    return [f"{path} must be a finite number" for path in _not_finite(raw, "")]


def _walk(raw: Mapping[str, Any]) -> Iterator[str]:
    import msgspec.inspect  # only a wrong configuration pays for it

    yield from _walk_type(raw, msgspec.inspect.type_info(Config), "")


def _walk_type(value: Any, kind: Any, path: str) -> Iterator[str]:
    from msgspec import inspect

    if isinstance(kind, inspect.UnionType):
        # Unions here are one type and either None or a Literal: a string is meant for the Literal.
        for option in kind.types:
            if not isinstance(value, str) or isinstance(option, inspect.LiteralType):
                yield from _walk_type(value, option, path)
    elif isinstance(kind, inspect.StructType) and isinstance(value, Mapping):
        known = {field.encode_name: field.type for field in kind.fields}
        for key, inner in value.items():
            here = f"{path}.{key}" if path else key
            if key in known:
                yield from _walk_type(inner, known[key], here)
            elif not path and not isinstance(inner, Mapping) and (within := _sections_with(key)):
                yield f"unknown key {here} outside a section; did you mean {within}?"
            else:
                yield f"unknown key {here}{_hint(nearest(key, known), known)}"
    elif isinstance(kind, inspect.DictType) and isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(kind.key_type, inspect.LiteralType) and key not in kind.key_type.values:
                known_keys = [str(name) for name in kind.key_type.values]
                yield f"unknown key {path}.{key}{_hint(nearest(key, known_keys), known_keys)}"
            yield from _walk_type(inner, kind.value_type, f"{path}.{key}")
    elif path in SECTIONS and isinstance(value, list if isinstance(kind, inspect.StructType) else Mapping):
        yield f"{path}: write {f'[[{path}]]' if path in LISTS else f'[{path}]'}"
    elif isinstance(kind, inspect.VarTupleType) and isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _walk_type(inner, kind.item_type, f"{path}[{index}]")
    elif isinstance(kind, inspect.LiteralType) and isinstance(value, str) and value not in kind.values:
        words = [str(word) for word in kind.values]
        yield f'{path} can\'t be "{value}"{_hint(nearest(value, words), words, quote=True)}'


def _sections_with(key: str) -> str:
    """The keys of this name with their sections, as a sentence has them; "" where there are none."""
    return " or ".join(f"{section}.{key}" for section in SECTIONS if key in keys_of(section))


def _hint(meant: str, known: Any, *, quote: bool = False) -> str:
    mark = '"' if quote else ""
    if meant:
        return f"; did you mean {mark}{meant}{mark}?"
    return "; use one of " + ", ".join(f"{mark}{word}{mark}" for word in sorted(known))


def _plain(message: str, raw: Mapping[str, Any]) -> str:
    match = _WHERE.fullmatch(message)
    what, path = (match["what"], match["path"] or "") if match else (message, "")
    for name, plain in PLAIN_NAMES.items():
        what = what.replace(f"{name[:-1]} | null`", plain)  # what may be left out: TOML has no null
        what = what.replace(name, plain)
    what = what.replace("Expected", "expected").replace("Object missing required field", "is missing the key")
    value = _value_at(raw, path)
    shown = f" (it is {value!r})" if isinstance(value, int | float | str) and len(repr(value)) <= 60 else ""
    return f"{path or 'the configuration'}: {what}{shown}"


def _value_at(raw: Any, path: str) -> Any:
    for part in re.findall(r"[^.\[\]]+", path):
        if isinstance(raw, Mapping):
            raw = raw.get(part)
        elif isinstance(raw, list | tuple) and part.isdigit() and int(part) < len(raw):
            raw = raw[int(part)]
        else:
            return None
    return raw


def _not_finite(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _not_finite(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _not_finite(inner, f"{path}[{index}]")
