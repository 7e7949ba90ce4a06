"""A job's receipt as a value, shown well in a terminal and in a notebook.

Energy in microjoules and joules, carbon in grams CO2e. The shape is `wattribute.receipt/1` (docs/python.md).
"""

import json
from collections.abc import Mapping
from typing import Any

SCHEMA = "wattribute.receipt/1"
# As in core/model.py, which a training script would pay 10 ms for.
TERMS = ("operation", "cooling", "platform", "retraining", "hardware", "overhead_hardware", "product")
SUMS = ("jsc", "jsce", "asc", "asce")
OVERLAPPED = "jobs overlapped in one process: they shared its use equally at each moment"
_NAMES = {"jsc": "JSC", "jsce": "JSC^e", "asc": "ASC", "asce": "ASC^e"}
_NOTES_SHOWN = 4


class Receipt:
    """What one job used and what that cost the climate, at one moment. A value: it doesn't change."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._parts: dict[str, Any] = json.loads(json.dumps(parts))

    @property
    def job_id(self) -> str:
        return str(self._parts["job_id"])

    @property
    def jsc_gco2e(self) -> float | None:
        """Operation and cooling."""
        return self._grams("jsc")

    @property
    def jsce_gco2e(self) -> float | None:
        """JSC and the job's part of running its platforms and retraining its products."""
        return self._grams("jsce")

    @property
    def asc_gco2e(self) -> float | None:
        """JSC and the job's part of the hardware."""
        return self._grams("asc")

    @property
    def asce_gco2e(self) -> float | None:
        """All of it: JSC^e, hardware, hardware of the overhead, and what the products cost to make."""
        return self._grams("asce")

    @property
    def terms(self) -> dict[str, float | None]:
        """Grams CO2e by term; those of JSC^e and the hardware's add up to ASC^e."""
        return {term: self._grams(term) for term in TERMS}

    @property
    def energy_uj(self) -> int | None:
        """Microjoules of all domains; None where nothing could be measured or modelled."""
        value = self._parts["energy_uj"]
        return None if value is None else int(value)

    @property
    def energy_j(self) -> dict[str, dict[str, float] | None]:
        """Joules by domain and share (direct, idle, overhead); None for a sensor that isn't there."""
        return {domain: None if shares is None else dict(shares) for domain, shares in self._parts["energy_j"].items()}

    @property
    def quality(self) -> dict[str, float]:
        """Which part of the energy was measured, integrated from power, or modelled: ratios that add up to 1."""
        return dict(self._parts["quality"])

    @property
    def bounds(self) -> dict[str, Any]:
        """Between which grams each sum and term lies ([low, high], worst case; None where it can't be said), and what
        makes ASC^e most uncertain (`dominant`).
        """
        copy: dict[str, Any] = json.loads(json.dumps(self._parts["bounds"]))
        return copy

    @property
    def revision(self) -> int:
        """1, and more each time something was added or corrected after the end."""
        return int(self._parts["revision"])

    @property
    def basis(self) -> str:
        """Who measured: `daemon`, `in-process`, or `mixed`."""
        return str(self._parts["basis"])

    @property
    def settled(self) -> bool:
        """False while terms are open; reading the receipt again later has them."""
        return bool(self._parts["settled"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What was modelled, missing, defaulted or folded."""
        return tuple(self._parts["notes"])

    def to_dict(self) -> dict[str, Any]:
        """The whole receipt, as JSON has it; a copy."""
        copy: dict[str, Any] = json.loads(json.dumps(self._parts))
        return copy

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Receipt) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash((self.job_id, self._parts["revision"], self.energy_uj))

    def __repr__(self) -> str:
        return f"<Receipt {self.job_id!r} {grams_text(self.asce_gco2e)} {joules_text(self.energy_uj)}>"

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self._lines())
        head = f"wattribute receipt: {self.job_id}"
        return "\n".join([head, *(f"  {name:<{width}}  {text}" for name, text in self._lines())])

    def _repr_html_(self) -> str:
        import html

        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self._lines()
        )
        return f"<table><caption>wattribute receipt: {html.escape(self.job_id)}</caption>{rows}</table>"

    def _grams(self, name: str) -> float | None:
        value = self._parts["gco2e"].get(name)
        return None if value is None else float(value)

    def _lines(self) -> list[tuple[str, str]]:
        """Name and text of each line, ready to be aligned."""
        parts = self._parts
        uses = f" (uses {', '.join(parts['uses'])})" if parts["uses"] else ""
        phase = f", phase {parts['phase']}" if parts["phase"] else ""
        lines = [
            ("product", f"{parts['product_id']}{uses}, role {parts['role']}{phase}"),
            ("time", self._time()),
            ("energy", self._energy()),
            ("quality", self._quality()),
        ]
        lines += [(_NAMES[name], f"{grams_text(self._grams(name)):>14}{self._made_of(name)}") for name in SUMS]
        if self._parts["bounds"].get("asce") or self._parts["bounds"].get("jsce"):
            lines.append(("bounds", self._bounds()))
        lines.append(("carbon", self._carbon()))
        shown = len(self.notes) if len(self.notes) <= _NOTES_SHOWN else _NOTES_SHOWN - 1
        lines += [("note", note) for note in self.notes[:shown]]
        if len(self.notes) > shown:
            lines.append(("note", f"and {len(self.notes) - shown} more in the receipt's JSON"))
        return lines

    def _time(self) -> str:
        parts = self._parts
        duration_s = "unknown" if parts["duration_s"] is None else f"{parts['duration_s']:.1f} s"
        running = "" if parts["ended_at"] else ", running"
        cpu = "" if parts["cpu_s"] is None else f", {_scaled(parts['cpu_s'], 's')} of CPU"
        gpu = f", {_scaled(parts['gpu_sm_s'], 's')} of GPU" if parts["gpu_sm_s"] else ""
        members = f", {parts['members']} members" if parts["members"] > 1 else ""
        return f"{duration_s}{running}{cpu}{gpu}{members}"

    def _energy(self) -> str:
        shown = []
        for domain, shares in self.energy_j.items():
            if shares:
                detail = " + ".join(f"{kind} {joules_text(round(j * 1e6))}" for kind, j in shares.items() if j)
                shown.append(f"{domain} {detail}" if detail else f"{domain} 0 J")
        return joules_text(self.energy_uj) + (f"  ({'; '.join(shown)})" if shown else "")

    def _quality(self) -> str:
        shown = [f"{ratio:.0%} {name}" for name, ratio in self.quality.items() if ratio]
        missing = self._parts["boundary"]["missing"]
        return (", ".join(shown) or "nothing measured") + (f"; without {', '.join(missing)}" if missing else "")

    def _made_of(self, name: str) -> str:
        own = {"jsc": ("operation", "cooling"), "jsce": ("platform", "retraining"), "asc": ("hardware",)}
        terms = own.get(name, ("overhead_hardware", "product"))
        base = {"jsce": "JSC + ", "asc": "JSC + ", "asce": "JSC^e + hardware + "}.get(name, "")
        return "  = " + base + " + ".join(f"{term.replace('_', ' ')} {grams_text(self._grams(term))}" for term in terms)

    def _bounds(self) -> str:
        bounds = self._parts["bounds"]
        name = "asce" if bounds.get("asce") else "jsce"
        low, high = bounds[name]
        missing = "" if name == "asce" else ", ASC^e open above: an EPC is missing"
        term, _, cause = (bounds.get("dominant") or "").partition(": ")
        widest = f"; most uncertain: {term.replace('_', ' ')}, by {cause}" if cause else ""
        return f"{_NAMES[name]} {grams_text(low)} to {grams_text(high)}{missing}{widest}"

    def _carbon(self) -> str:
        parts = self._parts
        intensity = parts["intensity"] or {}
        value, quality = intensity.get("gco2e_per_kwh"), intensity.get("quality")
        if value is None:
            price = "no carbon intensity"
        else:
            price = f"{value:g} gCO2e/kWh" + (f" ({quality})" if quality else "")
        pue = "" if parts["pue"] is None else f", PUE {parts['pue']:g}"
        settled = "" if self.settled else ", not settled yet"
        settled += f", revision {self.revision}" if self.revision > 1 else ""
        return f"{price}{pue}; measured by: {self.basis}{settled}"


def _scaled(value: float, unit: str) -> str:
    """A quantity of base `unit` with four digits and the prefix that fits."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ")):
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value / 1e-9:.4g} n{unit}" if value else f"0 {unit}"


def grams_text(value: float | None) -> str:
    """Grams CO2e for people."""
    return "unknown" if value is None else _scaled(value, "gCO2e")


def joules_text(energy_uj: int | None) -> str:
    """Microjoules for people, in joules."""
    return "unknown" if energy_uj is None else _scaled(energy_uj / 1e6, "J")


def blank(job_id: str, **known: Any) -> dict[str, Any]:
    """A receipt of what a process knows of itself when nobody measures: no energy is claimed (null, not 0)."""
    return {
        "schema": SCHEMA,
        "job_id": job_id,
        "product_id": "default",
        "uses": [],
        "role": "use",
        "phase": "",
        "node": "",
        "members": 1,
        "expected_nodes": 1,
        "parent_job_id": None,
        "started_at": None,
        "ended_at": None,
        "duration_s": None,
        "cpu_s": None,
        "gpu_sm_s": None,
        "energy_uj": None,
        "energy_j": {},
        "quality": {"measured": 0.0, "integrated": 0.0, "modelled": 0.0},
        "method": {},
        "boundary": {"included": [], "missing": ["cpu", "dram", "gpu", "psu", "fans", "nic", "storage"]},
        "policy": {},
        "pue": None,
        "intensity": None,
        "gco2e": dict.fromkeys((*TERMS, *SUMS)),
        "taxes": [],
        "bounds": {"jsce": None, "asce": None},
        "basis": "in-process",
        "settled": False,
        "revision": 0,
        "labels": {},
        "gaps": [],
        "notes": [],
        **known,
    }


__all__ = ["SCHEMA", "SUMS", "TERMS", "Receipt", "blank", "grams_text", "joules_text"]
