"""What a receipt of a process that measured itself says, as integers: microjoules, nanograms and nanoseconds.

Its floats are exact to a microjoule and a nanogram. It tells qualities of the whole, not by domain: where they can't be
told apart the energy is taken as modelled, never as measured.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from math import isfinite
from typing import Any

from wattribute.agent.core.model import DOMAIN_KINDS, PAYEE_TERMS, QUALITIES, ROLES, SHARE_KINDS, TERMS
from wattribute.agent.core.units import ng_from_g, ng_per_kwh, uj_from_j
from wattribute.agent.identity import problem

_MAX = (1 << 63) - 1
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)

Amounts = Mapping[tuple[str, str], int]
"""(domain, name as in a closed row's content) -> amount, without zeros."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a job. `over`: its process has said the last of it; `end_unix_ns`: up to when it tells.

    `said` is what a closed row says beside amounts, without start and end; its `notes` tell what was made fit.
    """

    job_id: str
    node: str
    start_unix_ns: int
    end_unix_ns: int
    over: bool
    amounts: Amounts = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)


def part_of(receipt: Mapping[str, Any]) -> Part | None:
    """A part as a stored receipt tells it; None for one that a daemon measured, or that holds what can't be."""
    try:
        return _part(receipt) if receipt["basis"] == "in-process" else None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _part(receipt: Mapping[str, Any]) -> Part:
    names = [receipt["job_id"], receipt["product_id"], receipt["node"], *receipt["uses"]]
    if any(problem(name) for name in names) or receipt["role"] not in ROLES or not isinstance(receipt["phase"], str):
        raise ValueError(names)
    start = _unix_ns(receipt["started_at"])
    ended = receipt["ended_at"]
    notes: list[str] = []
    amounts = {
        ("", name): amount
        for name, amount in (
            *_grams(receipt),
            ("cpu_ns", _seconds(receipt["cpu_s"])),
            ("sm_ns", _seconds(receipt["gpu_sm_s"])),
        )
        if amount
    }
    for (domain, share, quality), energy_uj in energy_of(receipt, notes).items():
        amounts[domain, f"{share}.{quality}"] = energy_uj
    return Part(
        job_id=receipt["job_id"],
        node=receipt["node"],
        start_unix_ns=start,
        end_unix_ns=_whole(start + _seconds(receipt["duration_s"]) if ended is None else max(start, _unix_ns(ended))),
        over=ended is not None and receipt["settled"] is True,
        amounts=amounts,
        said={
            **_price(receipt["intensity"]),
            "product_id": receipt["product_id"],
            "uses": list(receipt["uses"]),
            "role": receipt["role"],
            "phase": receipt["phase"],
            "user": "",
            "weight_ppm": 1_000_000,
            "nodes": _whole(receipt["expected_nodes"]),
            "source": "in-process",
            **({"notes": notes} if notes else {}),
        },
    )


def _grams(receipt: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Nanograms by term and by tax; grams that nobody knows are left out."""
    for term in TERMS:
        mass_g = receipt["gco2e"][term]
        if mass_g is not None:
            yield term, _whole(ng_from_g(_finite(mass_g)))
    taxes: dict[str, int] = {}
    for tax in receipt["taxes"]:
        if tax["term"] not in PAYEE_TERMS or problem(tax["product_id"]):
            raise ValueError(tax)
        name = f"tax.{tax['term']}.{tax['product_id']}"
        taxes[name] = _whole(taxes.get(name, 0) + ng_from_g(_finite(tax["gco2e"])))
    yield from taxes.items()


def energy_of(receipt: Mapping[str, Any], notes: list[str]) -> dict[tuple[str, str, str], int]:
    """(domain, share, quality) -> uJ, together the receipt's `energy_uj`."""
    told: dict[tuple[str, str], int] = {}
    for domain, shares in receipt["energy_j"].items():
        for share, energy_j in (shares or {}).items():
            if domain not in DOMAIN_KINDS or share not in SHARE_KINDS:
                raise ValueError((domain, share))
            if energy_uj := _whole(uj_from_j(_finite(energy_j))):
                told[domain, share] = energy_uj
    if receipt["energy_uj"] is None:
        notes.append("nobody measured its energy: it isn't known, and its carbon lacks what that would have cost")
        return {}
    whole_uj, parts_uj = _whole(receipt["energy_uj"]), sum(told.values())
    if parts_uj != whole_uj:
        notes.append(f"its receipt's parts are {parts_uj} uJ, and its energy {whole_uj} uJ: the latter is taken")
        if parts_uj > whole_uj:
            told = _cut(told, whole_uj)
    qualities = _qualities(receipt, told, whole_uj)
    if qualities is None:
        notes.append("which domain was measured can't be told from its receipt: all of it is taken as modelled")
        qualities = {}
    energy = {(domain, share, qualities.get(domain, "modelled")): uj for (domain, share), uj in told.items()}
    if parts_uj < whole_uj:
        energy["rest", "direct", "modelled"] = energy.get(("rest", "direct", "modelled"), 0) + whole_uj - parts_uj
    return energy


def _cut(told: Mapping[tuple[str, str], int], whole_uj: int) -> dict[tuple[str, str], int]:
    """The same in proportion, adding up to less: rounded down, what is left to the largest."""
    parts_uj = sum(told.values())
    cut = {key: energy_uj * whole_uj // parts_uj for key, energy_uj in told.items()}
    cut[max(told, key=lambda key: told[key])] += whole_uj - sum(cut.values())
    return {key: energy_uj for key, energy_uj in cut.items() if energy_uj}


def _qualities(receipt: Mapping[str, Any], told: Mapping[tuple[str, str], int], whole_uj: int) -> dict[str, str] | None:
    """The quality of each domain, where only one way to give each domain one makes up the receipt's ratios."""
    ratios = {quality: _finite(receipt["quality"][quality]) for quality in QUALITIES}
    by_domain: dict[str, int] = {}
    for (domain, _), energy_uj in told.items():
        by_domain[domain] = by_domain.get(domain, 0) + energy_uj
    alone = [quality for quality, ratio in ratios.items() if ratio == 1]
    if alone and sum(ratios.values()) == 1:
        return dict.fromkeys(by_domain, alone[0])
    wanted = {quality: round(ratio * whole_uj) for quality, ratio in ratios.items()}
    choices = [
        ("modelled",) if str(receipt["method"].get(domain, "")).startswith("modelled") else QUALITIES
        for domain in by_domain
    ]
    fitting = []
    for chosen in product(*choices):
        sums = dict.fromkeys(QUALITIES, 0)
        for quality, energy_uj in zip(chosen, by_domain.values(), strict=True):
            sums[quality] += energy_uj
        if sums == wanted:
            fitting.append(chosen)
    return dict(zip(by_domain, fitting[0], strict=True)) if len(fitting) == 1 else None


def _price(intensity: Mapping[str, Any] | None) -> dict[str, Any]:
    """What energy cost; nothing is corrected later, so it is final."""
    said = intensity or {}
    value = said.get("gco2e_per_kwh")
    return {
        "operation_ng_per_kwh": 0 if value is None else _whole(ng_per_kwh(_finite(value))),
        "zone": str(said.get("grid_zone") or ""),
        "provider": str(said.get("provider") or ""),
        "method": str(said.get("method") or ""),
        "quality": str(said.get("quality") or ""),
        "final": True,
    }


def _seconds(seconds: Any) -> int:
    """Nanoseconds; 0 where nobody knows."""
    return 0 if seconds is None else _whole(ng_from_g(_finite(seconds)))  # the same nine digits


def _unix_ns(text: str) -> int:
    return _whole((datetime.fromisoformat(text) - _UNIX) // timedelta(microseconds=1) * 1000)


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise ValueError(value)
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX:
        raise ValueError(value)
    return value


__all__ = ["Amounts", "Part", "part_of"]
