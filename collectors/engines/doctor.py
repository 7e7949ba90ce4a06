"""What `doctor` says of a serving engine: whether its page can be read, which fields it tells, and what mends it."""

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Finding
from wattribute.collectors.engines.counters import Work
from wattribute.collectors.engines.engine import EngineCollector


def finding(engine: EngineCollector) -> Finding:
    """Reads its page once. Raises nothing."""
    try:
        (work,) = engine.read()
    except SensorUnavailable as error:
        return Finding(source=engine.name, path=engine.url, ok=False, why=error.cause, fix=error.fix)
    said = [f"tells {listed(work.told)}"]
    if untold := engine.fields - work.told:
        said.append(f"not {listed(untold)}")
    if (summed := work.summed.get("request", 0)) > 1:
        said.append(f"request is the sum of {summed} series")
    if work.skipped:
        said.append(f"lines that couldn't be read: {work.skipped}")
    return Finding(source=engine.name, path=engine.url, ok=True, why=", ".join(said), value=_now(work))


def listed(fields: frozenset[str]) -> str:
    """Fields in words, in an order that doesn't change."""
    return " ".join(sorted(fields))


def _now(work: Work) -> str:
    return "" if work.in_flight is None else f"in flight now: {work.in_flight:g}"
