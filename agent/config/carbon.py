"""Rules that join values of [carbon] and [provider]: whether what is asked for exists, and of the right kind.

Direct and life-cycle factors are two quantities: one is never taken for the other. Files are read as far as this user
may; what only the agent's user may read is judged when the agent opens it.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from wattribute.agent.config.schema import Carbon, Config, Provider
from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.intensity import MOST_G_PER_KWH
from wattribute.collectors.grid.tables import Table, Zone, bundled

Problem = tuple[str, str]
Nearest = Callable[[str, Iterable[str]], str]

DIRECT_ONLY = ("watttime", "uk")
WITH_KEY = ("electricitymaps", "watttime", "prometheus")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
MEANT = {"UK": "GB", "GREAT BRITAIN": "GB", "EL": "GR"}
_AWS = re.compile(r"[a-z]{2}(-gov)?-[a-z]+-[0-9]")  # near to Google's names, and other places
_SETTINGS = ("zone", "url", "key_file", "query", "pue_query")


def problems(config: Config, nearest: Nearest) -> Iterator[Problem]:
    """What is wrong with [carbon] and [provider]; `nearest` finds the known word that was probably meant."""
    carbon, provider = config.carbon, config.provider
    if carbon.zone is not None:
        try:
            found = zone_in(table_of(carbon), carbon, nearest)
        except ConfigError as error:
            yield "carbon.zone", str(error)
        else:
            if isinstance(found, str):
                yield "carbon.zone", found
    yield from _files(carbon)
    yield from _unused(carbon)
    if carbon.provider is None:
        for key in _SETTINGS:
            if getattr(provider, key):
                yield f"provider.{key}", f"provider.{key} is set, but carbon.provider isn't; set both or neither"
    else:
        yield from _provider(carbon, carbon.provider, provider)


def table_of(carbon: Carbon) -> Table:
    """The table that zones are looked up in. Raises ConfigError where CodeCarbon's is asked for and isn't there."""
    if carbon.table == "codecarbon":
        from wattribute.collectors.grid.codecarbon import installed

        return installed()
    return bundled()


def zone_in(table: Table, carbon: Carbon, nearest: Nearest) -> Zone | str:
    """The figure of the configured zone, or a sentence that says what there is instead."""
    asked = carbon.zone or ""
    kinds = table.kinds(asked)
    if carbon.factor_type in kinds:
        return kinds[carbon.factor_type]
    if kinds:
        there = " and ".join(
            f"{zone.factor_type} ({float(zone.g_per_kwh):.4g} g/kWh, {zone.year}, {zone.source})"
            for zone in kinds.values()
        )
        country = table.find(asked.partition("-")[0], carbon.factor_type)
        other = f', or carbon.zone = "{country.key}"' if country is not None else ""
        return (
            f'carbon.zone "{asked}" is known by its {there} figure alone, and carbon.factor_type is '
            f'"{carbon.factor_type}"; the two are never mixed. Set carbon.factor_type = "{next(iter(kinds))}"{other}'
        )
    if _AWS.fullmatch(asked):
        return (
            f'carbon.zone "{asked}" looks like a region of AWS, for which there are no figures; give the country '
            "or the US state in which it lies"
        )
    names = table.names()
    meant = MEANT.get(asked.upper()) or names.get(nearest(asked, names), "")
    hint = f'; did you mean "{meant}"?' if meant else ""
    return (
        f'carbon.zone "{asked}" isn\'t in the {carbon.table} table (countries as FR or FRA, US states as US-CA, Google '
        f"Cloud regions as europe-west9){hint}; wattribute intensity show --zones lists them"
    )


def _files(carbon: Carbon) -> Iterator[Problem]:
    from wattribute.collectors.grid.series import intensities, pues

    for key, path, read in (
        ("series", carbon.series, intensities),
        ("pue_series", carbon.pue_series, pues),
    ):
        if path is None:
            continue
        try:
            read(Path(path))
        except ConfigError as error:
            if not isinstance(error.__cause__, PermissionError):
                yield f"carbon.{key}", f"carbon.{key}: {error}"


def _unused(carbon: Carbon) -> Iterator[Problem]:
    if carbon.table != "bundled" and carbon.zone is None and carbon.provider is None:
        yield "carbon.table", f'carbon.table = "{carbon.table}" has no use without carbon.zone; set both or neither'
    fallback = carbon.fallback_g_per_kwh
    if fallback is not None and carbon.provider is None:
        yield "carbon.fallback_g_per_kwh", "carbon.fallback_g_per_kwh has no use without carbon.provider"
    if fallback is not None and fallback > MOST_G_PER_KWH:
        yield "carbon.fallback_g_per_kwh", f"carbon.fallback_g_per_kwh ({fallback:g}) is above {MOST_G_PER_KWH} g/kWh"


def _provider(carbon: Carbon, name: str, provider: Provider) -> Iterator[Problem]:
    said = f'carbon.provider = "{name}"'
    if name in DIRECT_ONLY and carbon.factor_type != "direct":
        yield (
            "carbon.provider",
            f'{said} gives direct factors alone; set carbon.factor_type = "direct" (or a provider with life-cycle '
            "factors: electricitymaps)",
        )
    if name in ("electricitymaps", "watttime") and not provider.zone:
        example = "DE" if name == "electricitymaps" else "CAISO_NORTH"
        yield "carbon.provider", f'{said} needs provider.zone, e.g. "{example}"'
    if name == "uk":
        from wattribute.collectors.grid.uk import is_zone

        if not is_zone(provider.zone):
            yield (
                "provider.zone",
                f'provider.zone "{provider.zone}" is no place of {said}: leave it empty for Great Britain, or give a '
                'region from "1" to "17", or the first part of a postcode, e.g. "SW1A"',
            )
    if name == "prometheus":
        if not provider.url:
            yield "carbon.provider", f'{said} needs provider.url, e.g. "http://127.0.0.1:9090"'
        if not provider.query:
            yield "carbon.provider", f"{said} needs provider.query: PromQL that gives g CO2e per kWh as one series"
        if provider.pue_query and carbon.pue_series is not None:
            yield "provider.pue_query", "give one of carbon.pue_series and provider.pue_query"
    else:
        for key in ("query", "pue_query"):
            if getattr(provider, key):
                yield f"provider.{key}", f"provider.{key} is for prometheus; {said} has no use for it"
    if provider.key_file and name not in WITH_KEY:
        yield "provider.key_file", f"provider.key_file has no use: {said} needs no key"
    if provider.url:
        yield from _url(provider.url, name in ("electricitymaps", "watttime") or bool(provider.key_file))


def _url(url: str, with_key: bool) -> Iterator[Problem]:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or not url.isprintable():
        yield "provider.url", 'provider.url is no address of a server: "https://prometheus.example.org:9090" is one'
    elif parts.username is not None:
        yield "provider.url", f"provider.url {shown} has a user or password in it; put the key into provider.key_file"
    elif with_key and parts.scheme == "http" and host not in LOOPBACK:
        yield "provider.url", f"provider.url {shown} would show the key to whoever is on the way; use https://"
