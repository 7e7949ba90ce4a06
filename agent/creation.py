"""What creation jobs cost with the bounds of it, so that an EPC that is computed from them has some.

The archive keeps a job's figures, not how far off they may be: that is taken from the configuration of who asks.
"""

from collections.abc import Callable

from wattribute.agent.config import Loaded
from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.hardware import Hardware
from wattribute.agent.core.intensity import BAND_ELSE, Band, band_of, ratios
from wattribute.agent.core.lineage import asce
from wattribute.agent.core.records import JobRecord
from wattribute.agent.core.uncertainty import from_record, pue_band
from wattribute.agent.grid import chosen, fixed_value, knows_pue
from wattribute.agent.wiring import components


def cost_of(loaded: Loaded) -> Callable[[JobRecord], Bounded]:
    """A job's ASC^e in ng, by the quality of its energy and the configured intensity, PUE and hardware.

    What it paid for products is taken as it is. Raises ConfigError where the configured zone or part isn't known.
    """
    carbon = loaded.config.carbon
    intensity = _intensity(loaded)
    pue = pue_band(carbon.pue, configured=knows_pue(loaded))
    hardware = Hardware(components(loaded.config, ())[0]).band()

    def bounded(job: JobRecord) -> Bounded:
        found = from_record(job, intensity_band=intensity, pue_band=pue, hardware_band=hardware, epc_bands={})
        return found.asce or asce(job)

    return bounded


def _intensity(loaded: Loaded) -> Band:
    carbon = loaded.config.carbon
    if carbon.provider is not None:
        return BAND_ELSE  # some of it may have been estimated, or stood in for an answer
    if carbon.series is not None:
        return band_of("final", f"average, {carbon.factor_type}")
    return ratios(fixed_value(carbon, 0, configured=chosen(loaded)))
