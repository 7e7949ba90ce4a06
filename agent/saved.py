"""What a job looks like in the ledger: a description that changes seldom, and packed totals that change every tick."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from wattribute.agent.core.claims import Entry
from wattribute.agent.core.found import FoundJob, Reservation
from wattribute.agent.core.model import SLOTS, GroupId, Job, ProcessId, Root, Term
from wattribute.agent.core.uncertainty import band_of_texts, band_texts
from wattribute.agent.live import LiveJob

if TYPE_CHECKING:
    from wattribute.agent.ledger.opening import SavedJob


def tree_key(root: Root) -> str:
    """Name of a root process or a cgroup in the saved state."""
    return f"{root[1]}:{root[0]}"


def totals_of(entry: Entry) -> list[int]:
    """A job's packed row: its totals by slot, then its taxes in the order that its description names them."""
    return [*entry.values, *entry.taxes_ng.values()] if entry.taxes_ng else entry.values


def is_described(live: LiveJob) -> bool:
    """Whether the ledger was given this job's description as it is now."""
    return live.known_meta and live.described == (len(live.entry.taxes_ng), len(live.entry.gpus))


def describe(live: LiveJob, boot_id: str) -> dict[str, Any]:
    """The description of a job, as plain JSON values."""
    entry = live.entry
    return {
        "job": asdict(entry.job),
        "uid": live.uid,
        "boot_id": boot_id,
        "started_ns": entry.started_ns,
        "ended_ns": entry.ended_ns,
        "base_ns": entry.base_ns,
        "members": {token: [*root, live.parents.get(token)] for token, root in live.members.items()},
        "member_count": live.member_count,
        "taxes": [list(key) for key in entry.taxes_ng],
        "gpus": list(entry.gpus),
        "notes": list(live.notes),
        "gaps": live.gaps,
        "overlapped": live.overlapped,
        "reopened": live.reopened,
        "band": band_texts(live.band),
        "folded": live.folded,
        "folded_values": live.folded_values,
        "metered": live.metered,
        "found": [asdict(found) for found in live.found.values()],
    }


def revive(saved: "SavedJob") -> LiveJob:
    """A job as the ledger has it, without its members: see `members_of`."""
    meta, totals, corrected = saved
    description = dict(meta["job"])
    description["uses"] = tuple(description["uses"])
    taxes: dict[tuple[str, Term], int] = {
        (product_id, term): owed_ng for (product_id, term), owed_ng in zip(meta["taxes"], totals[SLOTS:], strict=False)
    }
    entry = Entry(
        Job(**description),
        meta["started_ns"],
        values=list(totals[:SLOTS]),
        taxes_ng=taxes,
        base_ns=meta["base_ns"],
        ended_ns=meta["ended_ns"],
        gpus=dict.fromkeys(meta["gpus"]),
        changed=False,
    )
    return LiveJob(
        entry,
        meta["uid"],
        member_count=meta["member_count"],
        notes=dict.fromkeys(meta["notes"]),
        gaps=list(meta["gaps"]),
        overlapped=meta["overlapped"],
        folded=meta["folded"],
        folded_values=meta["folded_values"],
        metered=meta.get("metered"),
        corrections_ng=dict(corrected.corrections_ng),
        corrected=corrected.times,
        reopened=meta.get("reopened", 0),
        band=band_of_texts(meta.get("band", ("1", "1"))),
        found={found.group: found for found in map(_found, meta.get("found", ()))},
        known_meta=True,
        described=(len(meta["taxes"]), len(meta["gpus"])),
    )


def members_of(meta: Mapping[str, Any]) -> dict[str, tuple[Root, str | None]]:
    """Token -> root process or cgroup, and the job that the member was opened inside."""
    return {
        token: (ProcessId(who, born) if isinstance(who, int) else GroupId(who, born), parent)
        for token, (who, born, parent) in meta["members"].items()
    }


def _found(saved: Mapping[str, Any]) -> FoundJob:
    fields = dict(saved)
    fields["group"] = GroupId(*fields["group"])
    fields["reserved"] = Reservation(*fields["reserved"])
    fields["uses"] = tuple(fields["uses"])
    fields["info"] = tuple(fields["info"])
    return FoundJob(**fields)
