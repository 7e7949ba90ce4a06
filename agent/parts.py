"""Adds up the receipts of one job id that several processes, or several runs, hold parts of."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from wattribute.agent.core.model import QUALITIES
from wattribute.agent.receipts import SUMS, TERMS, blank

Part = Mapping[str, Any]
_MIXED = "mixed"
_NG_DIGITS = 9  # grams are exact to a nanogram, so sums of them are rounded back to it


def merge(parts: Sequence[Part]) -> dict[str, Any]:
    """One receipt of all parts of one id: what was used is added up, what describes it is kept where they agree.

    Time is what the parts cover together, overlaps once. Raises ValueError without parts, or with two ids.
    """
    if len({part["job_id"] for part in parts}) != 1:
        raise ValueError("parts of exactly one job make a receipt")
    if len(parts) == 1:
        return dict(parts[0])
    parts = sorted(parts, key=lambda part: part["started_at"] or "")
    last = parts[-1]
    ended = [part["ended_at"] for part in parts]
    return blank(
        last["job_id"],
        product_id=last["product_id"],
        uses=list(dict.fromkeys(use for part in parts for use in part["uses"])),
        role=last["role"],
        phase=_same(part["phase"] for part in parts),
        node=_same(part["node"] for part in parts),
        members=sum(part["members"] for part in parts),
        expected_nodes=max(part["expected_nodes"] for part in parts),
        parent_job_id=last["parent_job_id"],
        started_at=parts[0]["started_at"],
        ended_at=None if None in ended else max(ended),
        duration_s=_covered_s(parts),
        cpu_s=_total(part["cpu_s"] for part in parts),
        gpu_sm_s=_total(part["gpu_sm_s"] for part in parts),
        energy_uj=_total(part["energy_uj"] for part in parts),
        energy_j=_energy(parts),
        quality=_quality(parts),
        method=_texts(part["method"] for part in parts),
        boundary={
            name: list(dict.fromkeys(kind for part in parts for kind in part["boundary"][name]))
            for name in ("included", "missing")
        },
        policy=_texts(part["policy"] for part in parts),
        pue=_agreed([part["pue"] for part in parts]),
        intensity=_agreed([part["intensity"] for part in parts]),
        gco2e={name: _grams(part["gco2e"].get(name) for part in parts) for name in (*TERMS, *SUMS)},
        taxes=_taxes(parts),
        bounds=_all_bounds([part["bounds"] for part in parts]),
        basis=_same(part["basis"] for part in parts),
        settled=all(part["settled"] for part in parts),
        revision=max(part["revision"] for part in parts),
        labels={key: value for part in parts for key, value in part["labels"].items()},
        gaps=[gap for part in parts for gap in part["gaps"]],
        notes=_notes(parts),
    )


def _same(values: Iterable[str]) -> str:
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else _MIXED


def _agreed(values: Sequence[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else None


def _total(values: Iterable[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _grams(values: Iterable[float | None]) -> float | None:
    """A sum that leaves a part's unknown grams out would pass for the whole: unknown then."""
    known = list(values)
    return None if None in known else round(sum(value for value in known if value is not None), _NG_DIGITS)


def _energy(parts: Sequence[Part]) -> dict[str, dict[str, float] | None]:
    sums: dict[str, dict[str, float] | None] = {}
    for part in parts:
        for domain, shares in part["energy_j"].items():
            if shares is None:
                sums.setdefault(domain, None)
                continue
            into = sums.get(domain) or {}
            for kind, energy_j in shares.items():
                into[kind] = round(into.get(kind, 0.0) + energy_j, 6)
            sums[domain] = into
    return sums


def _quality(parts: Sequence[Part]) -> dict[str, float]:
    weights = [part["energy_uj"] or 0 for part in parts]
    if not any(weights):
        weights = [1] * len(parts)
    whole = sum(weights)
    return {
        name: sum(part["quality"][name] * weight for part, weight in zip(parts, weights, strict=True)) / whole
        for name in QUALITIES
    }


def _texts(values: Iterable[Mapping[str, str]]) -> dict[str, str]:
    seen: dict[str, dict[str, None]] = {}
    for texts in values:
        for key, text in texts.items():
            seen.setdefault(key, {})[text] = None
    return {key: "; ".join(texts) for key, texts in seen.items()}


def _taxes(parts: Sequence[Part]) -> list[dict[str, Any]]:
    sums: dict[tuple[str, str], float] = {}
    for tax in (tax for part in parts for tax in part["taxes"]):
        key = (tax["product_id"], tax["term"])
        sums[key] = sums.get(key, 0.0) + tax["gco2e"]
    return [
        {"product_id": product, "term": term, "gco2e": round(grams, _NG_DIGITS)}
        for (product, term), grams in sums.items()
    ]


def _all_bounds(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Worst-case intervals add; what dominates is named where the parts agree."""
    bounds: dict[str, Any] = {
        name: _bounds([part.get(name) for part in parts]) for name in SUMS if any(name in part for part in parts)
    }
    if all("terms" in part for part in parts):
        bounds["terms"] = {term: _bounds([part["terms"].get(term) for part in parts]) for term in TERMS}
        bounds["dominant"] = _same(part["dominant"] for part in parts)
    return bounds


def _bounds(bounds: Sequence[Sequence[float] | None]) -> list[float] | None:
    known = [bound for bound in bounds if bound is not None]
    if len(known) < len(bounds):
        return None
    return [round(sum(bound[side] for bound in known), _NG_DIGITS) for side in (0, 1)]


def _notes(parts: Sequence[Part]) -> list[str]:
    notes = list(dict.fromkeys(note for part in parts for note in part["notes"]))
    others = {part["product_id"] for part in parts} - {parts[-1]["product_id"]}
    if others:
        notes.append(f"parts of this job were for other products: {', '.join(sorted(others))}")
    return [*notes, f"the sum of {len(parts)} parts, each measured by the process that used it"]


def _covered_s(parts: Sequence[Part]) -> float | None:
    spans = []
    for part in parts:
        if part["started_at"] is None or part["duration_s"] is None:
            return None
        start_s = datetime.fromisoformat(part["started_at"]).timestamp()
        spans.append((start_s, start_s + part["duration_s"]))
    covered_s, reached_s = 0.0, float("-inf")
    for start_s, end_s in sorted(spans):
        covered_s += max(end_s - max(start_s, reached_s), 0.0)
        reached_s = max(reached_s, end_s)
    return round(covered_s, 9)


__all__ = ["merge"]
