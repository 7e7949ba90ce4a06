"""`wattribute agent`: the daemon, in the foreground."""

import os
import sys
from pathlib import Path

import click

from wattribute.agent.config import check_exposure, load
from wattribute.agent.core.errors import WattributeError

FILE = click.Path(path_type=Path)


@click.command()
@click.option("--config", "file", type=FILE, help="Configuration file  [default: /etc/wattribute/wattribute.toml]")
@click.option("--listen", metavar="HOST:PORT", help="Where to serve /metrics  [default: 127.0.0.1:19917]")
@click.option("--allow-insecure", is_flag=True, help="Serve the network without encryption or login.")
@click.option("--user", metavar="NAME", help="Whom to become, for good, once the sensors are open.")
@click.option("--socket", metavar="PATH", help="The control socket that jobs talk to.")
@click.option("--state-dir", metavar="DIR", help="Where the ledger is kept.")
@click.option("--proc", metavar="DIR", help="Where the host's /proc is mounted.")
@click.option("--sys", "sys_dir", metavar="DIR", help="Where the host's /sys is mounted.")
@click.option("--cgroup", metavar="DIR", help="Where the host's cgroup tree is mounted.")
@click.option("--once", is_flag=True, help="Measure one interval, print the metrics page, and stop.")
def command(
    file: Path | None,
    listen: str | None,
    allow_insecure: bool,
    user: str | None,
    socket: str | None,
    state_dir: str | None,
    proc: str | None,
    sys_dir: str | None,
    cgroup: str | None,
    once: bool,
) -> None:
    """Run the node agent: sample power, split it over the jobs, keep the ledger, serve /metrics.

    Linux only. It stays in the foreground until SIGTERM or SIGINT.

    \b
    Example:
      wattribute agent --config /etc/wattribute/wattribute.toml
    """
    if sys.platform != "linux":
        raise WattributeError("the agent runs on Linux only; here, `wattribute run` and job() measure in-process")
    flags = {
        "agent.listen": listen,
        "agent.user": user,
        "agent.socket": socket,
        "agent.state_dir": state_dir,
        "paths.proc": proc,
        "paths.sys": sys_dir,
        "paths.cgroup": cgroup,
    }
    loaded = load(file, os.environ, flags)
    for warning in check_exposure(loaded.config, allow_insecure=allow_insecure):
        click.echo(f"wattribute: warning: {warning}", err=True)

    from wattribute.agent.daemon import serve  # after the checks: a wrong flag answers at once

    sys.exit(serve(loaded, once=once))
