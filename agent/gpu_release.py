"""Lets go of the GPUs for somebody who resets, repartitions or unbinds them, and takes them up again.

The sensor's worker does it, after the call that it is in; jobs and their claims on GPUs go on, and what the GPUs use
meanwhile is a gap. It doesn't outlive the agent: one that starts anew opens NVML.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from wattribute.agent.core.errors import Refused
from wattribute.agent.core.intensity import rfc3339
from wattribute.agent.core.model import Clock
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.live import LiveJob
from wattribute.agent.requests import GpuRelease, Peer
from wattribute.agent.sources import Release, Source

SOURCE = "nvml"


class GpuHold:
    """The agent's hold on the GPUs. Root, the agent's own user and `schedulers` (uids) may make it let go."""

    def __init__(self, sources: Iterable[Source[Any]], clock: Clock, schedulers: Collection[int]) -> None:
        self._source = next((source for source in sources if source.name == SOURCE), None)
        self._clock = clock
        self._schedulers = schedulers
        self._release: Release | None = None
        self._until_unix_ns = 0

    def ask(self, request: GpuRelease, peer: Peer) -> None:
        """Begins to let go, or takes the GPUs up again (`for_s` 0). Raises Refused for whoever may not."""
        if peer.uid != 0 and peer.uid not in self._schedulers and peer.uid != os.geteuid():
            raise Refused("only root, agent.scheduler_uids and the agent's own user may make it let go of the GPUs")
        if self._source is None:
            return
        if not request.for_s:
            self._source.resume()
            self._release = None
            return
        duration_ns = round(request.for_s * NS_PER_S)
        self._until_unix_ns = self._clock.time_ns() + duration_ns
        why = f"released by user {peer.uid} (process {peer.pid}) until {rfc3339(self._until_unix_ns)}"
        self._release = self._source.release(self._clock.monotonic_ns() + duration_ns, why)

    @property
    def released(self) -> bool:
        """Whether somebody else has the GPUs, and nothing read before is still to be booked."""
        return self._source is not None and self._source.released

    @property
    def done(self) -> bool:
        """Whether nothing is waited for any more."""
        return self._source is None or self._release is None or self._over() or self._release.done.is_set()

    def state(self) -> Mapping[str, object]:
        """As the protocol tells it."""
        if self._source is None:
            return {"released": True, "until": None, "source": False}
        release = self._release
        return {
            "released": release is not None and release.done.is_set() and not self._over(),
            "until": None if release is None else rfc3339(self._until_unix_ns),
            "source": True,
        }

    def _over(self) -> bool:
        return self._release is not None and self._clock.monotonic_ns() >= self._release.until_ns


def tell_holders(jobs: Iterable[LiveJob], gpu: str, start: str | None, end: str | None) -> None:
    """Nobody looks at a GPU for a while: what its jobs use of it then isn't in their receipts. It is told when that
    begins, because a job may end in it, and again with its end.
    """
    cause = f"GPU {gpu} was released: its energy isn't split over jobs"
    for live in jobs:
        gaps = [gap for gap in live.gaps if gap["cause"] != cause or gap["end"] is not None]
        if live.running and (gpu in live.entry.gpus or len(gaps) < len(live.gaps)):
            live.gaps = [*gaps, {"start": start, "end": end, "cause": cause}]
            live.known_meta = False
