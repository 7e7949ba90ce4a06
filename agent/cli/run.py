"""`wattribute run`: runs a command as a job. Nothing that happens to wattribute changes how the command runs."""

import contextlib
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from wattribute.agent import identity
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.process import here
from wattribute.agent.receipts import Receipt
from wattribute.agent.session import Job
from wattribute.agent.stored import write_atomic


def _name(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    for name in value if isinstance(value, tuple) else (value,):
        wrong = identity.problem(name) if name is not None else None
        if wrong is not None:
            raise click.BadParameter(f"{ascii(name)[:80]}: {wrong}")
    return value


def _labels(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    labels = {}
    for pair in value:
        key, separator, text = pair.partition("=")
        if not separator:
            raise click.BadParameter(f"{ascii(pair)[:80]}: write KEY=VALUE")
        _name(context, parameter, key)
        if text != identity.fit_text(text):
            raise click.BadParameter(f"the value of {key!r} has at most {identity.LABEL_CHARS} printable characters")
        labels[key] = text
    return labels


def _writable(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    if value is None:
        return None
    path = Path(value)
    folder = path.resolve().parent
    try:
        kind = path.stat().st_mode
    except OSError:
        kind = 0
    if value == "-":
        raise click.BadParameter("stdout is CMD's own; name a file, ./- if it is called so")
    if stat.S_ISDIR(kind):
        raise click.BadParameter(f"{value} is a directory; name a file")
    if kind and not stat.S_ISREG(kind):  # /dev/stderr, a pipe: written to, never replaced
        can = os.access(path, os.W_OK)
    else:
        can = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    if not can:
        raise click.BadParameter(
            f"can't write {value}: {'no' if not folder.is_dir() else 'no right to write to'} {folder}"
        )
    return path


@click.command(
    "run",
    context_settings={"allow_interspersed_args": False},
    short_help="Run a command as a job and print its receipt.",
)
@click.option(
    "--job-id", metavar="ID", callback=_name, help="Id of the job. Default: from Slurm, torchrun or the script."
)
@click.option("--product", metavar="ID", callback=_name, help="What the job is a unit of work of.")
@click.option("--uses", metavar="ID", multiple=True, callback=_name, help="Another product it stands on; repeatable.")
@click.option("--role", type=click.Choice(identity.ROLES), help="What it does for its product. Default: use.")
@click.option("--phase", metavar="P", callback=_name, help="A tag: data, experimentation, training, inference, ...")
@click.option("--weight", type=click.IntRange(1, identity.WEIGHT_MAX), help="Its part in taxes. Default: 1.")
@click.option(
    "--nodes", type=click.IntRange(1, identity.NODES_MAX), help="Machines it runs on. Default: Slurm's, or 1."
)
@click.option("--label", "labels", metavar="K=V", multiple=True, callback=_labels, help="A label; repeatable.")
@click.option("--receipt", "file", metavar="FILE", callback=_writable, help="Write the receipt there, as JSON.")
@click.argument("cmd", metavar="-- CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    job_id: str | None,
    product: str | None,
    uses: tuple[str, ...],
    role: str | None,
    phase: str | None,
    weight: int | None,
    nodes: int | None,
    labels: dict[str, str],
    file: Path | None,
    cmd: tuple[str, ...],
) -> None:
    """Run CMD as a job and print its receipt on stderr.

    Its input, output, signals and exit code are CMD's own: 128+N when signal N ends it, 127 when it isn't found,
    126 when it can't be executed. With an agent on this machine the job is registered there; without one it is
    measured from here.

    \b
    Example:
      wattribute run --product bert-base --phase training -- python train.py --epochs 3
    """
    environment = dict(os.environ)
    if job_id is None:
        job_id = identity.job_id(environment, list(cmd), time.strftime("%Y%m%dT%H%M%S"), os.urandom(2).hex())
        wrong = identity.problem(job_id)
        if wrong is not None:
            raise click.UsageError(
                f"the job id {ascii(job_id)[:80]} of the environment can't be used: {wrong}. Fix: use --job-id"
            )
    count = identity.nodes(environment) if nodes is None else nodes
    fields = {
        "product_id": product,
        "uses": list(uses),
        "role": role,
        "phase": phase,
        "weight": weight,
        "nodes": None if count == 1 else count,
        "labels": {**identity.labels(environment), **labels},
        "origin": "run",
    }
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="wattribute: %(message)s")
    here().hush("no agent")  # the receipt says so
    job = Job(job_id, {key: value for key, value in fields.items() if value}, environment)
    sys.exit(_run(job, cmd, environment, file))


def _run(job: Job, cmd: tuple[str, ...], environment: dict[str, str], file: Path | None) -> int:
    if sys.platform == "win32":
        return _run_plainly(job, cmd, environment, file)
    from wattribute.agent.reaper import CannotRun, Reaper, find

    reaper = Reaper()
    try:
        path = find(cmd[0], environment)
        with job, _children_join(job, environment) as theirs:
            outcome = reaper.run(path, cmd, theirs)
            if outcome.left_running:
                job.note(f"still running, and not billed from here on: {', '.join(outcome.left_running)}")
    except CannotRun as error:
        _say(f"wattribute: {error}")
        return error.code
    _deliver(job, file)
    return outcome.code


def _run_plainly(job: Job, cmd: tuple[str, ...], environment: dict[str, str], file: Path | None) -> int:
    """Without Unix: an ordinary child; the console gives Ctrl-C to both, and it is the command's to handle."""
    import signal
    import subprocess

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with job:
        try:
            code = subprocess.call(cmd, env={**environment, "WATTRIBUTE_JOB_ID": job.id})
        except OSError as error:
            _say(f"wattribute: {cmd[0]}: {error.strerror}")
            return 127 if isinstance(error, FileNotFoundError) else 126
    _deliver(job, file)
    return code


@contextlib.contextmanager
def _children_join(job: Job, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The command's environment. Where this process measures, it serves a socket, so that job() inside joins."""
    theirs = {**environment, "WATTRIBUTE_JOB_ID": job.id}
    folder = _private_folder(environment) if job.measured_here else None
    if folder is None:
        yield theirs
        return
    path = folder / "agent.sock"
    try:
        here().engine(environment).serve(path)
        theirs["WATTRIBUTE_AGENT__SOCKET"] = str(path)
    except WattributeError as error:
        job.note(f"jobs inside this one measure themselves: {error}")
    try:
        yield theirs
    finally:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _private_folder(environment: Mapping[str, str]) -> Path | None:
    """A directory nobody else can enter, on a path short enough for a socket's address (108 bytes)."""
    for place in (environment.get("XDG_RUNTIME_DIR", ""), environment.get("TMPDIR", ""), "/tmp"):
        folder = Path(place, f"wattribute-{os.getpid()}-{os.urandom(4).hex()}")
        if place.startswith("/") and len(os.fsencode(folder)) <= 90:
            with contextlib.suppress(OSError):
                folder.mkdir(mode=0o700)
                return folder
    return None


def _deliver(job: Job, file: Path | None) -> None:
    receipt = job.receipt
    _say(str(receipt))
    if file is not None:
        try:
            _write(file, receipt)
        except OSError as error:
            _say(f"wattribute: can't write the receipt to {file}: {error.strerror or error}")


def _write(file: Path, receipt: Receipt) -> None:
    text = json.dumps(receipt.to_dict(), indent=2, ensure_ascii=False) + "\n"
    target = file.resolve()
    if file.exists() and not file.is_file():
        with open(file, "w", encoding="utf-8") as stream:
            stream.write(text)
    else:
        write_atomic(target, text, 0o666)


def _say(text: str) -> None:
    """To stderr, whatever has become of it: the command's exit code matters more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
