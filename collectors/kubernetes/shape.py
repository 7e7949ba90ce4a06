"""JSON of which nothing is taken for granted: what isn't of the shape looked for is empty."""

from collections.abc import Mapping, Sequence

_NOTHING: Mapping[str, object] = {}


def mapping(value: object) -> Mapping[str, object]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else _NOTHING


def items(value: object) -> Sequence[object]:
    """An array, or an empty one."""
    return value if isinstance(value, list) else ()


def text(value: object, most: int = 256) -> str:
    """A string with what can't be printed replaced, cut to `most` characters, or an empty one."""
    if not isinstance(value, str):
        return ""
    return "".join(char if char.isprintable() else "?" for char in value[:most])
