"""Who sees what of the jobs over the control socket: energy is a side channel, and other users' jobs are their own.

Root, the scheduler and the agent's own user see every job, exactly and as it is now. Everybody else sees their own:
while one runs, nothing younger than export.export_age_s, and nothing finer than export.round_j. A job that has ended
has its closing receipt at once, which is what its user was promised.
"""

import os
from collections.abc import Iterable
from dataclasses import replace

from wattribute.agent.config.schema import Export
from wattribute.agent.core.model import SLOTS
from wattribute.agent.core.rounding import ng_of, values_of
from wattribute.agent.core.units import NS_PER_S, uj_from_j
from wattribute.agent.ledger.batch import unpack
from wattribute.agent.live import LiveJob
from wattribute.agent.requests import Peer
from wattribute.agent.view import View


class Sight:
    """By uid. `everybody`: whoever gets to ask may see all (a socket that only its owner can open)."""

    def __init__(self, export: Export, scheduler_uids: Iterable[int], *, everybody: bool) -> None:
        self.age_ns = round(export.export_age_s * NS_PER_S)
        self.quantum_uj = uj_from_j(export.round_j)
        self._age_s = export.export_age_s
        self._round_j = export.round_j
        self._trusted = {0, *scheduler_uids}
        self._everybody = everybody

    def sees_all(self, peer: Peer | None) -> bool:
        """Whether a peer sees every job, exactly and as it is now; None: whoever holds the node itself."""
        if peer is None or self._everybody or peer.uid in self._trusted:
            return True
        return peer.uid == os.geteuid()  # who it is now: an agent that root starts may become another

    @property
    def blurs(self) -> bool:
        """Whether pages are older or coarser than what is known: then nothing else may be told of the exact totals."""
        return bool(self.age_ns or self.quantum_uj)

    def may_see(self, live: LiveJob, peer: Peer | None) -> bool:
        """Whether a peer may know of a job."""
        return self.sees_all(peer) or (peer is not None and peer.uid == live.uid)

    def shown(self, live: LiveJob, view: View) -> LiveJob:
        """A job as its own user sees it; `view` is what /metrics shows."""
        entry, notes = live.entry, dict(live.notes)
        values, taxes_ng, corrections_ng = entry.values, entry.taxes_ng, live.corrections_ng
        if self.age_ns and live.running:
            row = view.rows.get(entry.job.id)
            packed = [0] * SLOTS if row is None else unpack(row.packed)
            # Taxes are packed behind the totals, in the order in which the job met them.
            values, taxes_ng = packed[:SLOTS], dict(zip(taxes_ng, packed[SLOTS:], strict=False))
            notes[f"while it runs, energy and grams are shown {self._age_s:g} s late (export.export_age_s)"] = None
        if self.quantum_uj:
            values = values_of(values, self.quantum_uj)
            taxes_ng = {key: ng_of(key[1], ng, self.quantum_uj) for key, ng in taxes_ng.items()}
            corrections_ng = {key: ng_of(key[1], ng, self.quantum_uj) for key, ng in corrections_ng.items()}
            notes[f"energy is rounded down to multiples of {self._round_j:g} J, grams likewise (export.round_j)"] = None
        if values is entry.values:
            return live
        entry = replace(entry, values=values, taxes_ng=taxes_ng)
        return replace(live, entry=entry, corrections_ng=corrections_ng, notes=notes)


__all__ = ["Sight"]
