"""One domain's counter: a kept descriptor, read with pread, and opened anew when its file has changed."""

import os
import re
from collections.abc import Mapping

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Domain, DomainKind
from wattribute.collectors.rapl.files import LINE_BYTES, open_regular, parse_uj, read_number, unavailable
from wattribute.collectors.rapl.tree import Zone, entries

CEILING_UW: Mapping[DomainKind, tuple[int, int, int]] = {
    "cpu": (400_000_000, 1_000_000_000, 2_000_000_000),
    "dram": (200_000_000, 400_000_000, 1_000_000_000),
    "psys": (1_000_000_000, 5_000_000_000, 10_000_000_000),
}
"""Least, unknown and most plausible power of a zone, in microwatts.

A zone may draw twice its largest power limit (boost; limits bind averages only). The least guards against a bogus
small limit, which would turn every wrap into a reset. The most guards against "no limit" (boards write 4095 W), under
which a whole wrap would fit into any minute. AMD's zones have no limits and dram zones often say 0: then the unknown.
"""

RESTART = "restart the agent: it opens its sensors at its start"

_LIMIT = re.compile(r"constraint_\d+_(max_power|power_limit)_uw")


class Counter:
    """One domain's counter: where it is, its descriptor, and after a failure its cause and when to try again."""

    __slots__ = (
        "_fd",
        "_inode",
        "_opener",
        "ceiling_uw",
        "domain",
        "failure",
        "last_uj",
        "lost",
        "retry_at_ns",
        "wait_ns",
        "wraps_at_uj",
        "zone",
    )

    def __init__(self, domain: Domain, zone: Zone) -> None:
        self._opener = os.geteuid()
        self.domain = domain
        self.zone = zone
        self.lost = True
        self.last_uj = -1  # -1: never read, so another way to the same counter may still be taken
        self.wraps_at_uj: int | None = None
        self.ceiling_uw = 0
        self.failure = ("", "")
        self.retry_at_ns = 0
        self.wait_ns = 0
        self._fd = -1
        self._inode = (0, 0)

    def read(self) -> int:
        """Microjoules as the counter shows them. Raises SensorUnavailable, and then `lost` is set."""
        if self._fd >= 0:
            try:
                energy_uj = self._value()
            except SensorUnavailable:
                pass  # a driver loaded anew answers under the same path: try once more, from the path
            else:
                if energy_uj != self.last_uj or not self._replaced():
                    self.lost = False
                    self.last_uj = energy_uj
                    return energy_uj
        self.lost = True
        self._open()
        self.last_uj = self._value()
        self.lost = False
        return self.last_uj

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        """Open the counter and read what the kernel says of its range and limits.

        The old descriptor goes only once there is a new one: rights may have been dropped since, and a counter that
        failed for a while (EIO while its CPU is off) answers the old one again.
        """
        try:
            fd = open_regular(self.zone.path)
        except SensorUnavailable as error:
            if os.geteuid() == self._opener or not isinstance(error.__cause__, PermissionError):
                raise
            cause = f"{error.cause}; it was opened by uid {self._opener}, whose rights the agent has given up"
            raise SensorUnavailable(cause, RESTART) from error
        self.close()
        self._fd = fd
        status = os.fstat(fd)
        self._inode = (status.st_dev, status.st_ino)
        self.wraps_at_uj = read_number(f"{self.zone.directory}/max_energy_range_uj") or None
        self.ceiling_uw = ceiling_uw(self.domain.kind, self.zone.directory)

    def _value(self) -> int:
        try:
            line = os.pread(self._fd, LINE_BYTES, 0)
        except OSError as error:
            raise unavailable(self.zone.path, error) from error
        return parse_uj(line, self.wraps_at_uj, self.zone.path)

    def _replaced(self) -> bool:
        # A live counter moves between two reads. One that didn't may be a file that has left its path: sysfs answers
        # ENODEV then, other file systems (tests, bind mounts) give the last value for ever.
        try:
            status = os.stat(self.zone.path)  # noqa: PTH116 - a Path costs more than the call
        except OSError as error:
            return not isinstance(error, PermissionError)  # rights may have been dropped after opening
        return (status.st_dev, status.st_ino) != self._inode


def ceiling_uw(kind: DomainKind, directory: str) -> int:
    """The most that a zone can plausibly draw, in microwatts, from its power limits."""
    least_uw, unknown_uw, most_uw = CEILING_UW[kind]
    limits_uw = [read_number(f"{directory}/{entry}") or 0 for entry in entries(directory) if _LIMIT.fullmatch(entry)]
    limit_uw = max(limits_uw, default=0)
    return min(max(2 * limit_uw, least_uw), most_uw) if limit_uw else unknown_uw
