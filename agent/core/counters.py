"""Two readings of one counter -> an Interval, or a named Gap with bounds; power samples -> an Interval.

A counter that fell has wrapped or was reset. It wrapped if the energy that a wrap implies is plausible for the
time between the reads (`ceiling_uw`), else it was reset (driver reload, suspend). Where a whole further wrap would
have fitted into the time, the true figure can't be known: a Gap carries the bounds.
Sources: Linux Documentation/power/powercap/powercap.rst; NVML nvmlDeviceGetTotalEnergyConsumption.
"""

from wattribute.agent.core.model import EnergyReading, Gap, GapCause, Interval, PowerReading
from wattribute.agent.core.units import NS_PER_S, energy_over

STEP_NS = NS_PER_S // 4
"""Counters move in steps (RAPL about 1 ms, NVML 20 to 100 ms): this much time's energy may arrive late at once."""


def between(before: EnergyReading | None, now: EnergyReading, asleep_ns: int = 0) -> Interval | Gap:
    """Energy from one reading of a domain's counter to the next, in microjoules.

    `before` None is the first reading: it opens the account and holds no energy. For `asleep_ns` of the time the
    machine was suspended: no counter went on in it.
    """
    if before is None:
        return _gap(now, now.at_ns, "first", 0, 0)
    duration_ns = now.at_ns - before.at_ns
    if duration_ns <= 0:
        return _gap(now, before.at_ns, "stale", 0, 0)
    awake_ns = max(0, duration_ns - asleep_ns)
    ceiling_uj = None if now.ceiling_uw is None else energy_over(now.ceiling_uw, awake_ns + STEP_NS)
    energy_uj = now.energy_uj - before.energy_uj
    if now.resumed and energy_uj >= 0:
        return _released(before, now, ceiling_uj)
    wrapped = energy_uj < 0
    if wrapped:
        if now.wraps_at_uj is None or energy_uj + now.wraps_at_uj < 0:
            return _reset(before, now, ceiling_uj)
        energy_uj += now.wraps_at_uj
        if ceiling_uj is not None and energy_uj > ceiling_uj:
            return _reset(before, now, ceiling_uj)
    elif ceiling_uj is not None and energy_uj > ceiling_uj:
        return _gap(now, before.at_ns, "implausible", 0, ceiling_uj)
    if now.wraps_at_uj and ceiling_uj is not None and energy_uj + now.wraps_at_uj <= ceiling_uj:
        unseen_wraps = (ceiling_uj - energy_uj) // now.wraps_at_uj
        return _gap(now, before.at_ns, "wrapped", energy_uj, energy_uj + unseen_wraps * now.wraps_at_uj)
    return Interval(
        domain=now.domain,
        start_ns=before.at_ns,
        end_ns=now.at_ns,
        energy_uj=energy_uj,
        quality=now.quality,
        wrapped=wrapped,
    )


def integrate(before: PowerReading | None, now: PowerReading, asleep_ns: int = 0) -> Interval | Gap:
    """Energy between two samples of averaged power, by trapezoid; over its `bridge_ns`, a suspend or a release, it is
    a gap.
    """
    if before is None:
        return _gap(now, now.at_ns, "first", 0, 0)
    duration_ns = now.at_ns - before.at_ns
    if duration_ns <= 0:
        return _gap(now, before.at_ns, "stale", 0, 0)
    if now.resumed:
        return _gap(now, before.at_ns, "released", 0, None)
    if duration_ns > now.bridge_ns or asleep_ns > STEP_NS:  # what is less may be the jitter of two clocks
        return _gap(now, before.at_ns, "absent", 0, None)
    energy_uj = (before.power_uw + now.power_uw) * duration_ns // (2 * NS_PER_S)
    return Interval(
        domain=now.domain, start_ns=before.at_ns, end_ns=now.at_ns, energy_uj=energy_uj, quality=now.quality
    )


def _released(before: EnergyReading, now: EnergyReading, ceiling_uj: int | None) -> Gap:
    """Nobody looked meanwhile. A counter that starts over can't have come to more than the ceiling: one that is above
    it has gone on, and its difference is exact; else it may have been reset and have passed its old value again.
    """
    energy_uj = now.energy_uj - before.energy_uj
    if ceiling_uj is None:
        return _gap(now, before.at_ns, "released", energy_uj, None)
    if energy_uj > ceiling_uj:
        return _gap(now, before.at_ns, "implausible", 0, ceiling_uj)
    went_on = now.energy_uj > ceiling_uj
    return _gap(now, before.at_ns, "released", energy_uj, energy_uj if went_on else ceiling_uj)


def _reset(before: EnergyReading, now: EnergyReading, ceiling_uj: int | None) -> Gap:
    # Since the reset the counter gathered what it shows now: that much is certain, if it is plausible at all.
    lower_uj = now.energy_uj if ceiling_uj is None or now.energy_uj <= ceiling_uj else 0
    return _gap(now, before.at_ns, "reset", lower_uj, ceiling_uj)


def _gap(now: EnergyReading | PowerReading, start_ns: int, cause: GapCause, lower_uj: int, upper_uj: int | None) -> Gap:
    return Gap(
        domain=now.domain,
        start_ns=start_ns,
        end_ns=now.at_ns,
        cause=cause,
        lower_uj=lower_uj,
        upper_uj=upper_uj,
        quality=now.quality,
        resumed=now.resumed,
    )
