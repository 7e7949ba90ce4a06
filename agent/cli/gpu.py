"""`wattribute gpu release`: has the agent let go of the GPUs, so that they can be reset, repartitioned or unbound."""

import errno
import json
import os
import re
import socket

import click

from wattribute.agent.client import CALL_S, AgentRefused, AgentUnreachable, Client, socket_paths
from wattribute.agent.core.errors import WattributeError

_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600}
_LONGEST_S = 86400
_PATIENCE_S = 15.0  # the agent answers within ten
_NOBODY = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


def seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """A duration like 90s, 10m or 1h, in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value.strip())
    duration_s = float(found[1]) * _UNIT_S[found[2]] if found else 0.0
    if not 0 < duration_s <= _LONGEST_S:
        raise click.BadParameter(f"{value!r} is no time between 0 and 24 hours, like 90s, 10m or 1h", ctx, param)
    return duration_s


@click.group()
def command() -> None:
    """Have the agent let go of the node's GPUs.

    \b
    Example:
      wattribute gpu release --for 10m
    """


@command.command()
@click.option(
    "--for", "for_s", metavar="TIME", default="10m", show_default=True, callback=seconds, help="For how long."
)
@click.option("--end", is_flag=True, help="Take the GPUs up again, before the time is over.")
@click.option("--json", "as_json", is_flag=True, help="Print the agent's answer as JSON.")
def release(for_s: float, end: bool, as_json: bool) -> None:
    """Let go of NVML, so that GPUs can be reset, repartitioned (MIG) or unbound, or the driver reloaded.

    Returns when the agent has closed its NVML session and its device files; it takes GPUs up again by itself when the
    time is over, and finds what has changed. Jobs go on; the energy of the GPUs meanwhile is a gap in the ledger, with
    bounds. For root, the agent's own user and agent.scheduler_uids. Exit code 0 where no agent holds the GPUs any more
    (also: where none runs, or none of it reads GPUs), 1 where it still does.

    \b
    Example:
      wattribute gpu release --for 10m && nvidia-smi -i 0 --gpu-reset && wattribute gpu release --end
    """
    client = _find()
    if client is None:
        answer: dict[str, object] = {"agent": False, "source": False, "released": True, "until": None}
    else:
        try:
            answer = {"agent": True, **client.call("gpu.release", _PATIENCE_S, for_s=0 if end else for_s)}
        except AgentRefused as refused:
            if refused.code != "unknown-op":
                raise
            raise WattributeError(f"the agent is older than this command. Fix: restart it ({refused})") from refused
        except AgentUnreachable as error:
            raise WattributeError(f"{error}: it may still hold the GPUs. Fix: stop it, or try again") from error
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    if not end and not answer["released"]:
        raise WattributeError(
            "the agent still holds the GPUs: a call to the driver hasn't returned for 10 s, or for all of --for; "
            "within --for it lets go as soon as it does. Fix: try again, or stop the agent"
        )
    if not as_json:
        click.echo(_said(answer, end=end))


def _said(answer: dict[str, object], *, end: bool) -> str:
    if not answer["agent"]:
        return "no agent runs here: none holds a GPU"
    if not answer["source"]:
        return "the agent reads no GPU: it holds none"
    if end:
        return "the agent takes the GPUs up again"
    return f"released until {answer['until']}; sooner: wattribute gpu release --end"


def _find() -> Client | None:
    """The agent, or None where there is certainly none. Raises WattributeError where one may be there."""
    client = Client.find(os.environ)
    if client is not None or not hasattr(socket, "AF_UNIX"):
        return client
    for path in socket_paths(os.environ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(CALL_S)
            try:
                link.connect(path)
            except OSError as error:
                if error.errno in _NOBODY:
                    continue
                raise WattributeError(f"can't ask the agent at {path}: {error.strerror or error}. Fix: sudo") from error
        return Client(path)
    return None
