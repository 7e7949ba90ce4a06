"""A job's receipt from its live or its saved totals, and what is the same on all receipts of a node."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wattribute.agent.core.receipt import build
from wattribute.agent.live import LiveJob
from wattribute.agent.saved import revive


def receipt_of(live: LiveJob, about: Mapping[str, Any], *, now_unix_ns: int, settled: bool) -> dict[str, Any]:
    """One job's receipt. `about` is the node's: node, basis, method, policy, pue, intensity, domains, notes."""
    notes: Sequence[str] = [*about["notes"], *live.notes]
    if live.overlapped:
        notes = [*notes, "jobs overlapped in one process: they shared its use equally at each moment"]
    if live.folded:
        notes = [*notes, "past export.max_jobs: on the page this job is part of `_overflow`"]
    return build(
        live.entry.job,
        live.entry.values,
        live.entry.taxes_ng,
        corrections_ng=live.corrections_ng,
        revision=live.revision,
        now_unix_ns=now_unix_ns,
        domains=about["domains"],
        common={**about, "gaps": live.gaps},
        members=max(1, live.member_count),
        settled=settled,
        notes=notes,
    )


def recorded(state_dir: Path) -> list[dict[str, Any]]:
    """The receipts of all jobs in an agent's ledger, also while it is down; [] where there is none that we may read.

    Raises LedgerError for one that is damaged.
    """
    from wattribute.agent.ledger.reader import read_only

    try:
        if not (state_dir / "ledger.db").exists():
            return []
    except PermissionError:
        return []
    with read_only(state_dir) as ledger:
        state = ledger.state()
        if "about" not in state:
            return []
        saved = {**ledger.finished_jobs(), **ledger.jobs()}
        seen_unix_ns = ledger.committed_unix_ns()
    receipts = []
    for key, job in saved.items():
        if not key.startswith("_"):
            live = revive(job)
            receipts.append(
                receipt_of(live, state["about"], now_unix_ns=seen_unix_ns, settled=live.entry.ended_ns is not None)
            )
    return receipts
