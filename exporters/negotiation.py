"""Which form of a page a client wants: the Accept and Accept-Encoding headers of HTTP (RFC 9110, section 12.5)."""

from collections.abc import Iterator
from typing import Literal, TypeAlias

Format: TypeAlias = Literal["text", "openmetrics"]

_VERSIONS = {  # versions of a media type that we speak; "" is none asked for
    "application/openmetrics-text": ("", "1.0.0"),
    "text/plain": ("", "0.0.4"),
}


def choose_format(accept: str) -> Format:
    """The form liked best; the first named where two are liked alike. Text for who names nothing that we have."""
    best: Format = "text"
    best_quality = 0.0
    for media_type, parameters, quality in _preferences(accept):
        if quality > best_quality and parameters.get("version", "") in _VERSIONS.get(media_type, ()):
            best = "openmetrics" if media_type == "application/openmetrics-text" else "text"
            best_quality = quality
        elif quality > best_quality and media_type in ("text/*", "*/*"):
            best, best_quality = "text", quality
    return best


def accepts_gzip(accept_encoding: str) -> bool:
    """True where gzip is named, or left to us by `*`, and not refused by q=0."""
    qualities = {coding: quality for coding, _, quality in _preferences(accept_encoding)}
    return qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0))) > 0


def _preferences(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Each element with its parameters and quality; one whose quality can't be read is left out."""
    for element in header.split(","):
        name, *rest = (part.strip() for part in element.split(";"))
        parameters = {
            key.strip().lower(): value.strip().strip('"') for key, _, value in (part.partition("=") for part in rest)
        }
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            continue
        if name and 0 <= quality <= 1:
            yield name.lower(), parameters, quality
