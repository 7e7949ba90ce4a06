"""job(): a job by what it is given and by what surrounds this process; names that can't be are made fit."""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from wattribute.agent import identity
from wattribute.agent.process import here
from wattribute.agent.session import Job


def job(
    id: str | None = None,
    *,
    product: str | None = None,
    uses: Iterable[str] = (),
    role: str = "use",
    phase: str = "",
    weight: int = 1,
    nodes: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> Job:
    """A job, not yet started: use it in a `with`, or call `start()` and `stop()`.

    Without an id it is the one it runs inside of (`wattribute run`, Slurm, torchrun), else it gets one of its own.
    `weight` (1 or more) is the job's part in the taxes of its products, `nodes` on how many machines it runs.
    Raises ValueError for a role or number that can't be; an id or name that can't be is made fit, with a warning.
    """
    environment = os.environ
    if role not in identity.ROLES:
        raise ValueError(f"role must be one of {', '.join(identity.ROLES)}, not {role!r}")
    weight = _whole("weight", weight, identity.WEIGHT_MAX)
    count = identity.nodes(environment) if nodes is None else _whole("nodes", nodes, identity.NODES_MAX)
    if id is None:
        id = identity.job_id(environment, sys.argv, time.strftime("%Y%m%dT%H%M%S"), os.urandom(2).hex())
    names = [uses] if isinstance(uses, str) else list(uses or ())
    tags = {**identity.labels(environment), **(labels or {})}
    fields = {
        "product_id": _fit("product", product) if product else None,
        "uses": [_fit("product", name) for name in names],
        "role": None if role == "use" else role,
        "phase": identity.fit_text(str(phase or ""), identity.NAME_CHARS),
        "weight": None if weight == 1 else weight,
        "nodes": None if count == 1 else count,
        "labels": {_fit("label", key): identity.fit_text(str(value)) for key, value in tags.items()},
    }
    own = [str(name) for name in (fields["product_id"], fields["role"]) if name]
    inside = identity.fit("-".join([id, *own])) if own and id == identity.surrounding_id(environment) else ""
    known = {key: value for key, value in fields.items() if value}
    return Job(_fit("job id", id), known, environment, id_inside=inside)


def _whole(what: str, value: Any, most: int) -> int:
    number = 0
    with suppress(TypeError, ValueError, OverflowError):
        number = int(value)
    if not 1 <= number <= most or number != value:
        raise ValueError(f"{what} must be a whole number from 1 to {most:,}, not {value!r}")
    return number


def _fit(what: str, name: object) -> str:
    text = str(name)
    wrong = identity.problem(text)
    if wrong is None:
        return text
    fitted = identity.fit(text)
    here().say_once(
        f"name {text[:200]}", "%s %s can't be used as it is: %s; %r is used", what, ascii(text)[:80], wrong, fitted
    )
    return fitted


__all__ = ["job"]
