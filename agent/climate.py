"""What a joule costs the climate, for a node: prices in force, what they are based on, and how far off they may be."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wattribute.agent.core.books import Books
from wattribute.agent.core.intensity import Band
from wattribute.agent.core.model import CarbonIntensity, SourceHealth
from wattribute.agent.core.uncertainty import band_texts, pue_band
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.grid import Fixed, Grid
from wattribute.agent.live import LiveJob

if TYPE_CHECKING:
    from wattribute.agent.corrections import Corrections
    from wattribute.agent.settlement import Settlement

LOOKED_BACK_NS = 300 * NS_PER_S
"""As long as a window of the ledger: whether anything in it may still be revised."""

CLOSED_BY_NS = 120 * NS_PER_S
"""So long after its end a job's last window is in the ledger: two intervals of a minute at most."""


_LARGE_PUE = 2.0  # from 1.06 on, the band of a configured PUE is the same for all


class Climate:
    """The grid as a node sees it. `hardware` and `pue_configured` are for the bounds of what it charges."""

    def __init__(self, grid: Grid, *, pue_configured: bool, hardware: Band) -> None:
        self._grid = grid
        self._pue_configured = pue_configured
        self._hardware = hardware
        self._band = grid.band()
        self._settlement: Settlement | None = None
        self._texts: tuple[tuple[float, Band], dict[str, list[str]]] | None = None
        self._settled_until_unix_ns = self._opened_unix_ns = 0

    @property
    def varies(self) -> bool:
        """Whether the price changes in time."""
        return not isinstance(self._grid, Fixed)

    @property
    def grid(self) -> Grid:
        """Where the prices come from."""
        return self._grid

    def settle_with(self, settlement: "Settlement", now_unix_ns: int, until_unix_ns: int) -> None:
        """Correct what was booked provisionally, from now on; until when it is corrected already."""
        self._settlement = settlement
        self._opened_unix_ns, self._settled_until_unix_ns = now_unix_ns, until_unix_ns
        settlement.start()

    def follow(self, books: Books, jobs: Mapping[str, LiveJob], corrections: "Corrections") -> None:
        """Once per tick: the prices as they are now, and what was settled since."""
        books.prices = self._grid.prices
        band = self._grid.band() if self.varies else self._band
        if band != self._band:
            self._band = band
            for live in jobs.values():
                if live.running:
                    live.widen(band)
                    live.known_meta = False
        settled = None if self._settlement is None else self._settlement.take()
        if settled is not None:
            corrections.settle(settled, jobs)
            self._settled_until_unix_ns = corrections.until_unix_ns

    def meet(self, live: LiveJob) -> None:
        """A job that begins is charged at what is in force."""
        live.widen(self._band)

    def provisional(self, live: LiveJob, unix_ns: int) -> bool:
        """Whether a later final value may still change what a job was charged."""
        job, ended_unix_ns = live.entry.job, live.entry.job.ended_unix_ns
        if ended_unix_ns is not None and ended_unix_ns + CLOSED_BY_NS <= self._settled_until_unix_ns:
            return False
        if self._settlement is not None and ended_unix_ns is not None and ended_unix_ns <= self._opened_unix_ns:
            # What it was charged at, the run before knew.
            return unix_ns - ended_unix_ns < self._settlement.waits_ns
        return self._grid.provisional(job.started_unix_ns, ended_unix_ns or unix_ns)

    def intensity(self, unix_ns: int) -> CarbonIntensity:
        """The carbon intensity in force."""
        return self._grid.now(unix_ns)

    def pue(self, unix_ns: int) -> float:
        """The PUE in force."""
        return self._grid.pue(unix_ns)

    def stated(self, books: Books, unix_ns: int) -> dict[str, Any]:
        """What the ledger's rows keep of what energy cost."""
        price, value = books.prices.at(unix_ns), self._grid.now(unix_ns)
        return {
            "operation_ng_per_kwh": price.operation,
            "cooling": price.cooling,
            "zone": value.zone,
            "provider": value.provider,
            "method": value.method,
            "quality": value.quality,
            "final": not self._grid.provisional(unix_ns - LOOKED_BACK_NS, unix_ns),
        }

    def about(self, unix_ns: int) -> dict[str, Any]:
        """What is the same on all receipts: JSON values; bands are pairs of exact fractions, as texts."""
        value, pue = self._grid.now(unix_ns), self._grid.pue(unix_ns)
        return {
            "pue": pue,
            "intensity": {
                "gco2e_per_kwh": value.gco2e_per_kwh,
                "grid_zone": value.zone,
                "provider": value.provider,
                "method": value.method,
                "quality": value.quality,
                "year": value.year,
                "source": value.source,
            },
            "varies": self.varies,
            "bands": self._band_texts(pue),
        }

    def _band_texts(self, pue: float) -> dict[str, list[str]]:
        """Made anew only where something changed: a tick asks for them."""
        if self._texts is None or self._texts[0] != (pue, self._band):
            # A configured PUE that varies may have been larger when a job ran: the band must hold for that one too.
            largest = max(pue, _LARGE_PUE) if self.varies and self._pue_configured else pue
            bands = {
                "intensity": self._band,
                "pue": pue_band(largest, configured=self._pue_configured),
                "hardware": self._hardware,
            }
            self._texts = (pue, self._band), {name: band_texts(band) for name, band in bands.items()}
        return self._texts[1]

    def health(self) -> list[SourceHealth]:
        """Of what is asked for the intensity."""
        return self._grid.health()

    def close(self) -> None:
        """End the threads."""
        if self._settlement is not None:
            self._settlement.close()
        self._grid.close()
