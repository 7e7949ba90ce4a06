"""The words of a data sheet that several of its sections use."""

from collections.abc import Mapping

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.model import Term
from wattribute.agent.core.receipt import rfc3339
from wattribute.agent.core.units import NS_PER_S
from wattribute.exporters.report.exact import mass, plain, seconds

TERM_NAMES: Mapping[Term, str] = {
    "operation": "operation",
    "cooling": "cooling",
    "platform": "platform tax",
    "retraining": "retraining tax",
    "hardware": "hardware",
    "overhead_hardware": "overhead's hardware",
    "product": "product tax",
}
PRICE = (
    "ASC^e is a price, not an inventory: its taxes are shares of what other jobs emitted. To total an organisation, "
    "add up operation, cooling and hardware of jobs of every role and what nobody was billed for; nothing else."
)


def moment(unix_ns: int | None) -> str:
    """A time for a reader, to the second, UTC."""
    text = rfc3339(unix_ns)
    return "" if text is None else text[:19].replace("T", " ") + " UTC"


def duration(duration_ns: int) -> str:
    """A time span for a reader."""
    whole_s = duration_ns // NS_PER_S
    if whole_s < 60:
        return f"{plain(seconds(duration_ns // 1_000_000 * 1_000_000))} s"
    minutes, left_s = divmod(whole_s, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (left_s, "s")]
    first = next(position for position, (value, _) in enumerate(parts) if value)
    return " ".join(f"{value} {unit}" for value, unit in parts[first : first + 2] if value)


def between(bounds: Bounded | None) -> str:
    """An interval in brackets, to stand behind a value; nothing where there is none."""
    return "" if bounds is None else f" ({mass(bounds.low)} to {mass(bounds.high)})"


def signed(mass_ng: int) -> str:
    """A difference, with its sign."""
    return ("+" if mass_ng > 0 else "") + mass(mass_ng)


__all__ = ["PRICE", "TERM_NAMES", "between", "duration", "moment", "signed"]
