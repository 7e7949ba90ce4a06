"""The carbon intensity and PUE in force, for the node: a price for every moment, and what it is based on.

The order in which sources count, each a step down in quality, said once: what a source says (final, estimated,
forecast); its last value, held on (estimated, then stale), also across a restart; carbon.fallback_g_per_kwh; the
zone's yearly figure; the world's average. Units: g CO2e/kWh, Unix nanoseconds.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from wattribute.agent.config import Carbon, Config, Loaded
from wattribute.agent.core.accounting import Price
from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.intensity import (
    DIRECT_SOURCE,
    LIFECYCLE_SOURCE,
    About,
    Band,
    FactorType,
    mix_bounds,
    price_of,
    ratios,
    valued,
)
from wattribute.agent.core.model import CarbonIntensity, Clock, SourceHealth
from wattribute.agent.core.prices import PriceSeries
from wattribute.collectors.grid.feed import Feed, Unanswered

if TYPE_CHECKING:
    from wattribute.collectors.grid.keys import Keys

log = logging.getLogger("wattribute")


class Grid(Protocol):
    """What the node asks. All but `close` return at once and never raise.

    `prices`: one object for all moments, replaced whole when there is news; what was in force stays so in every later
    one. `provisional`: whether a final value may still change what energy of that time cost; `final_price`: what it
    cost by final values alone, None as long as one is missing, and for time before this source was in use
    (`since_unix_ns`). `band`: how far off the value in force may be, as multiples of it.
    """

    @property
    def since_unix_ns(self) -> int: ...

    @property
    def prices(self) -> PriceSeries: ...
    def now(self, unix_ns: int) -> CarbonIntensity: ...
    def pue(self, unix_ns: int) -> float: ...
    def final_price(self, start_unix_ns: int, end_unix_ns: int) -> Price | None: ...
    def provisional(self, start_unix_ns: int, end_unix_ns: int) -> bool: ...
    def band(self) -> Band: ...
    def health(self) -> list[SourceHealth]: ...
    def close(self) -> None: ...


class Fixed:
    """One value and one PUE for all time."""

    def __init__(self, value: CarbonIntensity, pue: float, since_unix_ns: int) -> None:
        self._value = value
        self._pue = pue
        self._since_unix_ns = since_unix_ns
        self._price = price_of(value.gco2e_per_kwh, pue)
        self._prices = PriceSeries.constant(self._price)

    @property
    def since_unix_ns(self) -> int:
        """Since when it has been in use."""
        return self._since_unix_ns

    @property
    def prices(self) -> PriceSeries:
        """The one price."""
        return self._prices

    def now(self, unix_ns: int) -> CarbonIntensity:
        """The value."""
        return self._value

    def pue(self, unix_ns: int) -> float:
        """The PUE."""
        return self._pue

    def final_price(self, start_unix_ns: int, end_unix_ns: int) -> Price | None:
        """The price; None for time before it was in use: that was another configuration's."""
        return None if start_unix_ns < self._since_unix_ns else self._price

    def provisional(self, start_unix_ns: int, end_unix_ns: int) -> bool:
        """Never."""
        return False

    def band(self) -> Band:
        """By where the value comes from."""
        return ratios(self._value)

    def health(self) -> list[SourceHealth]:
        """Nothing is asked."""
        return []

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class Link:
    """One step of the chain: what it is called, its value if it has one, else why it hasn't."""

    name: str
    value: CarbonIntensity | None
    why: str = ""


def open_grid(
    config: Config,
    clock: Clock,
    state_dir: Path | None,
    configured: bool,
    *,
    asks: bool = True,
    about_unix_ns: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Grid:
    """What [carbon] says, ready at once. Raises ConfigError for a zone, a file or a key that isn't there.

    `configured`: whether anybody chose the intensity. `asks`: whether a provider is asked; else its cache in
    `state_dir` and the fallbacks count. `about_unix_ns`: the moment that will be asked about, where that isn't now. A
    thread runs only for what changes.
    """
    carbon = config.carbon
    feed: Feed | None = None
    fallback: CarbonIntensity | None = None
    if carbon.series is not None:
        from wattribute.collectors.grid.series import SeriesFeed

        feed = SeriesFeed(Path(carbon.series), carbon.factor_type)
    elif carbon.provider is not None:
        feed = open_feed(config, environment, needs_key=asks)
        fallback = next(link.value for link in fallbacks(config) if link.value is not None)
        fallback = replace(fallback, final=not feed.settles)
    else:
        fallback = fixed_value(carbon, clock.time_ns(), configured=configured)
        if carbon.pue_series is None:
            return Fixed(fallback, carbon.pue, clock.time_ns())
    from wattribute.agent.grid_followed import Followed
    from wattribute.collectors.grid.cache import Cache
    from wattribute.collectors.grid.series import PueFeed

    pue_feed = None if carbon.pue_series is None else PueFeed(Path(carbon.pue_series))
    cache = Cache(state_dir, feed.about) if state_dir is not None and feed is not None else None
    grid = Followed(feed, fallback, carbon.pue, clock, cache=cache, pue_feed=pue_feed, about_unix_ns=about_unix_ns)
    if asks:
        grid.start()
    return grid


def chosen(loaded: Loaded) -> bool:
    """Whether anybody chose the carbon intensity."""
    ways = ("mix", "zone", "series", "provider")
    return not loaded.is_default("carbon.intensity_g_per_kwh") or any(
        getattr(loaded.config.carbon, way) for way in ways
    )


def knows_pue(loaded: Loaded) -> bool:
    """Whether anybody said what the PUE is: a number, a series or a query."""
    varies = loaded.config.carbon.pue_series is not None or bool(loaded.config.provider.pue_query)
    return varies or not loaded.is_default("carbon.pue")


def fixed_value(carbon: Carbon, since_unix_ns: int, *, configured: bool) -> CarbonIntensity:
    """A number, a mix or a zone as a value in force. Raises ConfigError for a zone that isn't there."""
    method = f"average, {carbon.factor_type}"
    if carbon.zone is not None:
        from wattribute.agent.config.carbon import table_of, zone_in
        from wattribute.agent.config.check import nearest

        zone = zone_in(table_of(carbon), carbon, nearest)
        if isinstance(zone, str):
            raise ConfigError(zone)
        return zone.intensity()
    if carbon.mix is not None:
        source = LIFECYCLE_SOURCE if carbon.factor_type == "lifecycle" else DIRECT_SOURCE
        low, central, high = map(float, mix_bounds(carbon.mix.items(), carbon.factor_type))
        about = About(zone="", provider="mix", method=method, source=source)
        return valued(about, central, "static", valid_from_unix_ns=since_unix_ns, bounds=(low, high))
    if not configured:
        return replace(world(carbon.factor_type), valid_from_unix_ns=since_unix_ns)
    about = About(zone="", provider="static", method=method, source="carbon.intensity_g_per_kwh")
    assert carbon.intensity_g_per_kwh is not None  # exactly one way is stated
    return valued(about, float(carbon.intensity_g_per_kwh), "static", valid_from_unix_ns=since_unix_ns)


def world(factor_type: FactorType) -> CarbonIntensity:
    """The world's average: what counts where nothing better is known."""
    from wattribute.collectors.grid.tables import WORLD, bundled

    zone = bundled().kinds(WORLD)[factor_type]
    return replace(zone.intensity("default"), zone="", provider="default")


def fallbacks(config: Config) -> list[Link]:
    """What counts when a provider doesn't answer and nothing is held on, best first; the last always has a value."""
    carbon = config.carbon
    number = carbon.fallback_g_per_kwh
    own = None
    if number is not None:
        about = About(
            zone=config.provider.zone,
            provider="fallback",
            method=f"average, {carbon.factor_type}",
            source="carbon.fallback_g_per_kwh",
        )
        own = valued(about, float(number), "fallback")
    return [
        Link("carbon.fallback_g_per_kwh", own, "not set"),
        _static(config),
        Link("the world's average", world(carbon.factor_type)),
    ]


def _static(config: Config) -> Link:
    """The yearly figure of the provider's zone, or of the country that its name begins with."""
    from wattribute.agent.config.carbon import table_of

    table, zone, factor_type = table_of(config.carbon), config.provider.zone, config.carbon.factor_type
    if config.carbon.provider == "uk":
        zone = "GB"
    for key in (zone, zone.partition("-")[0]):
        found = table.find(key, factor_type) if key else None
        if found is not None:
            return Link(f"the yearly figure of {found.key}", found.intensity())
    there = " and ".join(kind for kind in table.kinds(zone)) if zone else ""
    why = (
        f"the table has a {there} figure of {zone}, not a {factor_type} one" if there else "the table hasn't this zone"
    )
    return Link("the zone's yearly figure", None, why if zone else "provider.zone isn't set")


def open_feed(config: Config, environment: Mapping[str, str], *, needs_key: bool) -> Feed:
    """The configured provider. Raises ConfigError where its key is needed and isn't there."""
    from wattribute.collectors.grid import electricitymaps, prometheus, uk, watttime
    from wattribute.collectors.grid.keys import Keys

    carbon, provider = config.carbon, config.provider
    url, timeout_s = provider.url, provider.timeout_s
    if carbon.provider == "uk":
        return uk.GreatBritain(provider.zone, url=url, timeout_s=timeout_s)
    variables = {"electricitymaps": electricitymaps.VARIABLES, "watttime": watttime.VARIABLES}
    keys = Keys(variables.get(carbon.provider or "", prometheus.VARIABLES), provider.key_file, environment)
    if needs_key and (carbon.provider != "prometheus" or provider.key_file):
        _check_key(keys, carbon.provider or "")
    if carbon.provider == "electricitymaps":
        return electricitymaps.ElectricityMaps(provider.zone, carbon.factor_type, keys, url=url, timeout_s=timeout_s)
    if carbon.provider == "watttime":
        return watttime.WattTime(provider.zone, keys, url=url, timeout_s=timeout_s)
    return prometheus.Prometheus(
        provider.zone,
        carbon.factor_type,
        keys if provider.key_file else None,
        url=url,
        query=provider.query,
        pue_query=provider.pue_query,
        timeout_s=timeout_s,
    )


def _check_key(keys: "Keys", provider: str) -> None:
    try:
        keys.read()
    except Unanswered as error:
        raise ConfigError(f'carbon.provider = "{provider}": {error}') from None
    if warning := keys.warning():
        log.warning("carbon intensity: %s", warning)
