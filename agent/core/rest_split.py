"""Who pays the rest of a node: it goes where the energy beside it went, in the same parts.

Fans, regulators and power supplies follow what is drawn, and no sensor tells for whom they ran. Whoever was billed for
a joule of cpu, dram or gpu, as direct, idle or overhead, is billed the rest that came with it; so is nobody.
"""

from collections.abc import Container

from wattribute.agent.core.attribution import Split, apportion


class Followed:
    """What was booked since rest was, by job and by reason, in microjoules.

    What the present tick booked stands beside it: a meter that answers late tells of a time before that.
    """

    def __init__(self) -> None:
        self._booked = Split()
        self._now: list[Split] = []

    def begin(self) -> None:
        """A tick begins."""
        for parts in self._now:
            self._join(parts)
        self._now = []

    def add(self, parts: Split) -> None:
        """In this tick a domain's energy was split so."""
        self._now.append(parts)

    def forget(self, *, before: bool) -> None:
        """What was booked until now (`before`: until this tick) had no rest that is known."""
        self._taken(before=before)

    def take(self, energy_uj: int, held: Container[str], *, before: bool) -> Split:
        """Split the rest of what was booked until now (`before`: until this tick, where there was something).

        The part of a job that isn't `held` any more is unregistered.
        """
        booked = self._taken(before=before)
        if not (booked.direct or booked.idle or booked.overhead or booked.unattributed):
            booked = self._taken(before=False)
        result = Split()
        shares = [
            (into, job_id, uj)
            for into, by_job in (
                (result.direct, booked.direct),
                (result.idle, booked.idle),
                (result.overhead, booked.overhead),
            )
            for job_id, uj in by_job.items()
        ]
        reasons = list(booked.unattributed.items())
        weights = [*(uj for _, _, uj in shares), *(uj for _, uj in reasons)]
        if not any(weights):
            result.leave("idle", energy_uj)
            return result
        parts = apportion(energy_uj, weights)
        for (into, job_id, _), part_uj in zip(shares, parts, strict=False):
            if job_id in held:
                into[job_id] = part_uj
            else:
                result.leave("unregistered", part_uj)
        for (reason, _), part_uj in zip(reasons, parts[len(shares) :], strict=True):
            result.leave(reason, part_uj)
        return result

    def _taken(self, *, before: bool) -> Split:
        if not before:
            self.begin()
        booked, self._booked = self._booked, Split()
        return booked

    def _join(self, parts: Split) -> None:
        booked = self._booked
        for into, by_job in (
            (booked.direct, parts.direct),
            (booked.idle, parts.idle),
            (booked.overhead, parts.overhead),
        ):
            for job_id, energy_uj in by_job.items():
                into[job_id] = into.get(job_id, 0) + energy_uj
        for reason, energy_uj in parts.unattributed.items():
            booked.leave(reason, energy_uj)


__all__ = ["Followed"]
