"""What can be wrong with `collectors.wall` and the [wall] table whose single values are fine."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from wattribute.agent.config.schema import Config, Wall

_URL = re.compile(r"https?://(?:[^\s/:\[\]@?#]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:/[^\s@?#]*)?", re.ASCII)

READ_BY: Mapping[str, tuple[str, ...]] = {
    "chip": ("hwmon",),
    "url": ("redfish",),
    "credentials_file": ("redfish",),
    "ca_file": ("redfish",),
    "interval_s": ("redfish", "ipmi"),
    "timeout_s": ("redfish", "ipmi"),
}
"""Which sensors look at a key of [wall]."""


def problems(config: Config) -> Iterator[tuple[str, str]]:
    """The dotted key at fault, and a sentence that names it and says what to do."""
    sensor, wall = config.collectors.wall, config.wall
    if sensor == "off":
        return
    if sensor == "psys" and config.collectors.rapl not in ("auto", "powercap"):
        yield (
            "collectors.wall",
            f'collectors.wall = "psys" is read with the other RAPL zones, and collectors.rapl is '
            f'"{config.collectors.rapl}"; set collectors.rapl = "powercap"',
        )
    for key, readers in READ_BY.items():
        if sensor not in readers and getattr(wall, key) != getattr(Wall(), key):
            whom = " and ".join(f'"{reader}"' for reader in readers)
            yield f"wall.{key}", f'wall.{key} is for collectors.wall = {whom}, and that is "{sensor}"; take it out'
    if sensor == "redfish":
        yield from _redfish(wall)


def _redfish(wall: Wall) -> Iterator[tuple[str, str]]:
    if not wall.url:
        yield "wall.url", 'collectors.wall = "redfish" needs wall.url, the address of the BMC: "https://10.0.0.5"'
    elif not _URL.fullmatch(wall.url):
        shown = re.sub(r"//[^/]*@", "//***@", wall.url)
        yield "wall.url", f'wall.url = "{shown}" is no address of a BMC: "https://10.0.0.5" is one, without a user'
    elif wall.url.startswith("http://") and not _is_loopback(urlsplit(wall.url).hostname or ""):
        yield "wall.url", f'wall.url = "{wall.url}" would send the password in the clear; write https://'


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


__all__ = ["problems"]
