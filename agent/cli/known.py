"""The receipts that the command line can find: the agent's, its ledger's, and those of processes without an agent."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from wattribute.agent.client import AgentRefused, AgentUnreachable, Client
from wattribute.agent.config import load
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.identity import NAME_CHARS, user_state_dir
from wattribute.agent.parts import merge
from wattribute.agent.receipt_shape import is_receipt
from wattribute.agent.statement import recorded
from wattribute.agent.stored import stored

PATIENCE_S = 5.0  # someone waits at a terminal, not a training script
OWN_ONLY = "of the agent's jobs only your own are shown; root, agent.scheduler_uids and the agent's user see all"

Receipt = dict[str, Any]


def receipts(environment: Mapping[str, str] = os.environ) -> list[Receipt]:
    """One receipt per job, oldest first; where those of others aren't shown, stderr says so.

    Raises WattributeError where an agent is there but doesn't answer.
    """
    answer = _asked(environment, "jobs") or {"jobs": []}
    if answer.get("seen") == "own":
        click.echo(f"wattribute: {OWN_ONLY}", err=True)
    by_job: dict[str, list[Receipt]] = {}
    for part in [*_measured(environment, answer["jobs"]), *_stored(environment)]:
        by_job.setdefault(part["job_id"], []).append(part)
    return sorted((merge(parts) for parts in by_job.values()), key=lambda receipt: receipt["started_at"] or "")


def receipt(job_id: str, environment: Mapping[str, str] = os.environ) -> Receipt:
    """One job's receipt. Raises WattributeError where nobody knows the job."""
    answer = _asked(environment, "job.receipt", job_id=job_id)
    if answer is not None:
        parts = [answer["receipt"]]
    else:
        parts = [part for part in _measured(environment, []) if part["job_id"] == job_id]
    parts += [part for part in _stored(environment) if part["job_id"] == job_id]
    if not parts:
        seen = (_asked(environment, "jobs") or {}).get("seen")
        why = f" ({OWN_ONLY})" if seen == "own" else ""
        raise WattributeError(f"no job {job_id[:NAME_CHARS]!r} is known here{why}. See: wattribute jobs")
    return merge(parts)


def _measured(environment: Mapping[str, str], live: list[Receipt]) -> list[Receipt]:
    """The agent's own receipts, and those of jobs that it no longer holds, from its ledger where we may read it."""
    known = {part["job_id"] for part in live}
    state_dir = Path(load(None, environment, {}).config.agent.state_dir)
    return [*live, *(part for part in recorded(state_dir) if part["job_id"] not in known)]


def _asked(environment: Mapping[str, str], op: str, **fields: str) -> dict[str, Any] | None:
    """What the agent answers; None where there is none, or where it doesn't know the job: perhaps a file does."""
    client = Client.find(environment)
    if client is None:
        return None
    try:
        return client.call(op, PATIENCE_S, **fields)
    except AgentRefused:
        return None
    except AgentUnreachable as error:
        raise AgentUnreachable(f"{error}. See: wattribute doctor") from error


def _stored(environment: Mapping[str, str]) -> list[Receipt]:
    own = user_state_dir(environment)
    state_dirs = [Path(load(None, environment, {}).config.agent.state_dir), *([Path(own)] if own else [])]
    return [part for part in stored(state_dirs) if is_receipt(part)]
