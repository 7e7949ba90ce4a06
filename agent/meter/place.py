"""Where the worker processes of a job find their account: a file on a tmpfs, in a directory that only this user has."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

SHARED_MEMORY = "/dev/shm"


def account_path(job_id: str, agent_path: str, environment: Mapping[str, str]) -> Path | None:
    """The file of a job that is measured by the agent at a socket; None where there is no tmpfs (macOS, Windows).

    Two jobs have two, and so has one job with two agents: the reports of each go to one of them.
    """
    name = hashlib.sha256(f"{agent_path}\n{job_id}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime) / "wattribute" / name
    if hasattr(os, "getuid") and os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        return Path(SHARED_MEMORY) / f"wattribute-{os.getuid()}" / name
    return None


__all__ = ["account_path"]
