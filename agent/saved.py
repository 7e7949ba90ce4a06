"""What a job looks like in the ledger: a description that changes seldom, and packed totals that change every tick."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from wattribute.agent.core.books import Entry
from wattribute.agent.core.model import SLOTS, Job, ProcessId, Term
from wattribute.agent.registry import LiveJob


def tree_key(process: ProcessId) -> str:
    """Name of a root process in the saved state."""
    return f"{process.pid}:{process.start_ticks}"


def totals_of(entry: Entry) -> list[int]:
    """A job's packed row: its totals by slot, then its taxes in the order that its description names them."""
    return [*entry.values, *entry.taxes_ng.values()] if entry.taxes_ng else entry.values


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
        "members": {
            token: [process.pid, process.start_ticks, live.parents.get(token)]
            for token, process in live.members.items()
        },
        "member_count": live.member_count,
        "taxes": [list(key) for key in entry.taxes_ng],
        "gpus": list(entry.gpus),
        "notes": list(live.notes),
        "gaps": live.gaps,
        "overlapped": live.overlapped,
        "folded": live.folded,
        "folded_values": live.folded_values,
    }


def revive(meta: Mapping[str, Any], totals: Sequence[int]) -> LiveJob:
    """A job as the ledger has it, without its members: see `members_of`."""
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
        known_meta=True,
        described=(len(meta["taxes"]), len(meta["gpus"])),
    )


def members_of(meta: Mapping[str, Any]) -> dict[str, tuple[ProcessId, str | None]]:
    """Token -> root process and the job that the member was opened inside."""
    return {token: (ProcessId(pid, ticks), parent) for token, (pid, ticks, parent) in meta["members"].items()}
