"""AdminComment of a Slurm job in slurmdbd: one line of what it used, by `sacct` and `sacctmgr`.

`scontrol update` would refuse: at the epilog the job has finished already. slurmdbd keeps quotes as backticks (seen
with 22.05), so the line has none: it is words `name=value` and no JSON.
"""

import re
import subprocess
from collections.abc import Mapping, Sequence

from wattribute.agent.core.errors import WattributeError
from wattribute.agent.slurm_jobs import SlurmJob

PREFIX = "wattribute: "
COMMAND_S = 10.0
_FIRST = re.compile(r"([^,\[]*)(?:\[(\d+)[^\]]*\])?")


def comment_of(job: SlurmJob) -> str:
    """One line of at most 200 ASCII characters, without quotes."""
    words = [
        "energy_j=unknown" if job.energy_uj is None else f"energy_j={job.energy_uj / 1e6:.3f}",
        f"jsce_g={_grams(job.jsce_gco2e)}",
        f"asce_g={_grams(job.asce_gco2e)}",
        f"nodes={job.nodes}/{job.expected_nodes}",
        f"basis={job.basis}",
        f"state={'running' if job.ended_unix_ns is None else 'ended'}",
    ]
    return PREFIX + " ".join(words)


def set_comment(number: str, cluster: str, text: str) -> None:
    """Writes it, in the place of an older one of ours; anybody else's stays. Raises WattributeError."""
    name, there = _record_of(number, cluster)
    if there and not there.startswith(PREFIX):
        raise WattributeError(f"job {number} has an AdminComment of somebody else's, which stays: {there[:40]!r}")
    where = [f"jobid={name}", *([f"cluster={cluster}"] if cluster else [])]
    _ask(["sacctmgr", "--immediate", "modify", "job", "where", *where, "set", f"AdminComment={text}"])


def is_first_node(environment: Mapping[str, str]) -> bool:
    """Whether an epilog runs on the first of its job's nodes; so does one that isn't told which they are."""
    nodes = environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST", "")
    here = environment.get("SLURMD_NODENAME", "")
    return not nodes or not here or first_node(nodes) == here


def first_node(nodes: str) -> str:
    """The first name of a host list such as `gpu[007-9,12]-ib,login`, here `gpu007-ib`."""
    name = ""
    for match in _FIRST.finditer(nodes):
        plain, number = match[1], match[2] or ""
        name += plain + number
        if not match[0] or nodes[match.end() : match.end() + 1] in ("", ","):
            break
    return name


def _record_of(number: str, cluster: str) -> tuple[str, str]:
    """What sacct calls the job (`40_7`; sacctmgr takes a plain 40 for all of an array), and its AdminComment."""
    where = ["-j", number, *(["-M", cluster] if cluster else [])]
    said = _ask(["sacct", "-X", "-n", "-P", *where, "-o", "JobIDRaw,JobID,AdminComment"])
    for line in said.splitlines():
        raw, _, rest = line.partition("|")
        if raw == number:
            name, _, comment = rest.partition("|")
            return name, comment
    raise WattributeError(f"slurmdbd doesn't know job {number}. Fix: see that sacct -j {number} lists it")


def _ask(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=COMMAND_S, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise WattributeError(f"{command[0]} isn't on the PATH. Fix: set PATH in the script that calls this") from error
    except subprocess.TimeoutExpired as error:
        raise WattributeError(f"{command[0]} didn't answer within {COMMAND_S:g} s. Fix: see slurmdbd") from error
    if done.returncode:
        why = " ".join(done.stderr.decode("utf-8", "replace").split())[:200] or done.stdout.decode("utf-8", "replace")
        raise WattributeError(f"{command[0]} failed ({done.returncode}): {why[:200].strip()}")
    return done.stdout.decode("utf-8", "replace")


def _grams(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6f}"
