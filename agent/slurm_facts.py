"""What Slurm's prolog leaves for the agent, which may run without root: facts of a job, in a file of root's.

The folder is made by the first prolog after a boot, in /run; the epilog removes a job's file. Read by
collectors/slurm_prolog.py.
"""

import json
import os
import re
from collections.abc import Mapping

from wattribute.agent.core.errors import WattributeError
from wattribute.agent.identity import NAME_CHARS, fit_text
from wattribute.agent.slurm_folder import cant, opened, put

# Not the job's name, its user's name, its paths: nobody has asked for them.
NAMES = (
    "SLURM_JOB_ID",
    "SLURM_JOB_UID",
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_ACCOUNT",
    "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_CPUS_PER_NODE",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_HET_JOB_ID",
)
NULL = "(null)"  # what some of Slurm's scripts are given for an empty text
VALUE_CHARS = 1024
_WORD = re.compile(r"(?:^|[\s,;])wattribute\.io/(product|phase)=([^\s,;]+)")


def facts_of(environment: Mapping[str, str]) -> dict[str, str]:
    """What a prolog's environment says of its job: NAMES, and `product` and `phase` as the job's comment has them.

    A comment names them as `wattribute.io/product=NAME` and `wattribute.io/phase=NAME`, anywhere in it.
    """
    said = {name: environment.get(name, "") for name in NAMES}
    facts = {name: fit_text(text, VALUE_CHARS) for name, text in said.items() if text and text != NULL}
    for word, name in _WORD.findall(environment.get("SLURM_JOB_COMMENT", "")):
        facts.setdefault(word, fit_text(name, NAME_CHARS))
    return facts


def job_number(environment: Mapping[str, str]) -> str:
    """The number of the job that a script of Slurm's runs for. Raises WattributeError."""
    number = environment.get("SLURM_JOB_ID", "")
    if not (number.isascii() and number.isdigit() and len(number) < 16):
        raise WattributeError("no SLURM_JOB_ID in the environment. Fix: let Slurm call it, as docs/slurm.md says")
    return number


def keep(folder: str, environment: Mapping[str, str]) -> None:
    """Leaves the facts of a job; all may read them, as `scontrol show job`. Raises WattributeError with the fix."""
    put(folder, job_number(environment), json.dumps(facts_of(environment), ensure_ascii=True).encode())


def drop(folder: str, environment: Mapping[str, str]) -> None:
    """Takes the facts of a job away, if there are any. Raises WattributeError with the fix."""
    number = job_number(environment)
    try:
        at = opened(folder)
    except FileNotFoundError:
        return
    try:
        os.unlink(number, dir_fd=at)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise cant(folder, error) from error
    finally:
        os.close(at)
