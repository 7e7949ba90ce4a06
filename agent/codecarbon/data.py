"""One run in CodeCarbon's terms, made of a receipt. KILOGRAMS of CO2e, kWh with the PUE in them, watts, seconds."""

import os
import platform
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from wattribute import __version__
from wattribute.agent.process import here
from wattribute.agent.receipts import Receipt

J_PER_KWH = 3_600_000  # as in core/units.py, which a training script needn't load
GPU_DEVICES = ("nvidia[0-9]*", "kfd", "dri/renderD*", "dxg")
"""By what a process reaches a GPU on Linux: who sees none of them uses none."""


@dataclass(kw_only=True)
class EmissionsData:
    """The columns of emissions.csv in their order (CodeCarbon 3.3). What isn't known is None; a GPU that isn't there
    used 0.

    Without slots: scripts ask it for its `__dict__`, as CodeCarbon does itself.
    """

    timestamp: str
    project_name: str
    run_id: str
    experiment_id: str | None = None
    duration: float | None = None
    emissions: float | None = None
    emissions_rate: float | None = None
    cpu_power: float | None = None
    gpu_power: float | None = None
    ram_power: float | None = None
    cpu_energy: float | None = None
    gpu_energy: float | None = None
    ram_energy: float | None = None
    energy_consumed: float | None = None
    water_consumed: float | None = None
    country_name: str | None = None
    country_iso_code: str | None = None
    region: str | None = None
    cloud_provider: str | None = None
    cloud_region: str | None = None
    os: str | None = None
    python_version: str | None = None
    codecarbon_version: str = f"wattribute {__version__}"
    cpu_count: int | None = None
    cpu_model: str | None = None
    gpu_count: int | None = None
    gpu_model: str | None = None
    longitude: float | None = None
    latitude: float | None = None
    ram_total_size: float | None = None
    tracking_mode: str = "process"
    cpu_utilization_percent: float | None = None
    gpu_utilization_percent: float | None = None
    ram_utilization_percent: float | None = None
    ram_used_gb: float | None = None
    on_cloud: str | None = None
    pue: float | None = None
    wue: float | None = None

    @property
    def values(self) -> "OrderedDict[str, Any]":
        """Column -> value."""
        return OrderedDict((field.name, getattr(self, field.name)) for field in fields(self))

    def toJSON(self) -> str:
        """As CodeCarbon's handlers write it."""
        import json

        return json.dumps(self.values, sort_keys=True, indent=4)


@dataclass(kw_only=True)
class TaskEmissionsData(EmissionsData):
    """The same of one task, as handlers get it."""

    task_name: str

    @property
    def values(self) -> "OrderedDict[str, Any]":
        """Column -> value, the name first; a task's row leaves out what CodeCarbon's does."""
        values = super().values
        values.move_to_end("task_name", last=False)
        for name in ("experiment_id", "pue", "wue"):
            del values[name]
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a script asks to be reckoned with in the place of what the node has; None: the node's."""

    pue: float | None = None
    g_per_kwh: float | None = None
    wue_l_per_kwh: float | None = None


@dataclass(slots=True)
class Amounts:
    """What the receipts of one run say together: joules by domain, grams; None: not known."""

    energy_j: dict[str, float]
    operation_g: float | None
    cooling_g: float | None
    known: bool

    @classmethod
    def of(cls, receipts: list[Receipt]) -> "Amounts":
        """Their sum. One without energy makes the whole unknown: a part isn't passed off as the sum."""
        energy_j: dict[str, float] = {}
        operation = cooling = 0.0
        known = True
        for receipt in receipts:
            for domain, shares in receipt.energy_j.items():
                if shares is not None:
                    energy_j[domain] = energy_j.get(domain, 0.0) + sum(shares.values())
            terms = receipt.terms
            if receipt.energy_uj is None or terms["operation"] is None or terms["cooling"] is None:
                known = False
                continue
            operation += terms["operation"]
            cooling += terms["cooling"]
        return cls(energy_j, operation if known else None, cooling if known else None, known)


def data_of(
    receipts: list[Receipt], *, run_id: str, project: str, duration_s: float, prices: Prices, about: Mapping[str, Any]
) -> EmissionsData:
    """A run of one job, or of several that it holds. `about`: columns that the script itself tells."""
    amounts = Amounts.of(receipts)
    parts = receipts[0].to_dict()
    pue = prices.pue if prices.pue is not None else _pue_of(amounts, parts)
    data = EmissionsData(
        timestamp=time.strftime("%Y-%m-%dT%H:%M:%S"), project_name=project, run_id=run_id, duration=duration_s, pue=pue
    )
    data.region = parts["intensity"].get("grid_zone") if prices.g_per_kwh is None and parts.get("intensity") else None
    for name, value in {**_machine(), **about}.items():
        setattr(data, name, value)
    if data.gpu_count == 0:
        data.gpu_energy = data.gpu_power = 0.0
    if not amounts.known:
        return data
    total_kwh = sum(amounts.energy_j.values()) * pue / J_PER_KWH
    data.energy_consumed = total_kwh
    for theirs, ours in (("cpu", "cpu"), ("gpu", "gpu"), ("ram", "dram")):
        if ours in amounts.energy_j:
            used_j = amounts.energy_j[ours] * pue
            setattr(data, f"{theirs}_energy", used_j / J_PER_KWH)
            setattr(data, f"{theirs}_power", used_j / duration_s if duration_s > 0 else None)
    data.emissions = _emitted_g(amounts, total_kwh, pue, prices) / 1000
    data.emissions_rate = data.emissions / duration_s if duration_s > 0 else None
    if prices.wue_l_per_kwh is not None:
        data.wue, data.water_consumed = prices.wue_l_per_kwh, prices.wue_l_per_kwh * total_kwh
    return data


def _pue_of(amounts: Amounts, parts: Mapping[str, Any]) -> float:
    """What was in force over the run: facility energy over IT energy, by the grams that were booked."""
    if amounts.operation_g and amounts.cooling_g is not None:
        return (amounts.operation_g + amounts.cooling_g) / amounts.operation_g
    return float(parts.get("pue") or 1.0)


def _emitted_g(amounts: Amounts, total_kwh: float, pue: float, prices: Prices) -> float:
    operation_g, cooling_g = amounts.operation_g or 0.0, amounts.cooling_g or 0.0
    if prices.g_per_kwh is not None:
        return total_kwh * prices.g_per_kwh
    return operation_g * pue if prices.pue is not None else operation_g + cooling_g


def _machine() -> dict[str, Any]:
    known: dict[str, Any] = {
        "os": platform.platform(),
        "python_version": platform.python_version(),
        "cpu_count": os.cpu_count(),
        "gpu_count": gpu_count(),
    }
    try:
        from wattribute.collectors.host import host_facts

        facts = host_facts()
        known.update(cpu_model=facts.cpu_model or None, ram_total_size=facts.memory_bytes / 2**30)
    except Exception:  # noqa: BLE001 - a column that stays empty, not a training run that ends
        here().say_once("codecarbon host", "what machine this is can't be told", exc_info=True)
    return known


def gpu_count() -> int | None:
    """0 where this process sees no GPU, so that it uses none; None: there may be some."""
    return 0 if sys.platform == "linux" and not any(any(Path("/dev").glob(one)) for one in GPU_DEVICES) else None
