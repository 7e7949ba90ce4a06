"""CycloneDX 1.6 ML-BOM: a model's energy by activity in kWh, and what that emitted in TONNES of CO2e.

modelCard.considerations.environmentalConsiderations (https://cyclonedx.org/docs/1.6/json/): operation with cooling
(JSC); hardware and ASC^e stand in properties. `co2CostOffset` is never written: offsets aren't netted.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from wattribute.agent.core.receipt import rfc3339
from wattribute.exporters.report.exact import decimal_of, grams, plain, tonnes
from wattribute.exporters.report.sheet import Costs, Sheet

_BY_PHASE: Mapping[str, str] = {
    "data": "data-preparation",
    "experimentation": "design",
    "training": "training",
    "inference": "inference",
    "offline-evaluation": "validation",
}
_BY_ROLE: Mapping[str, str] = {"creation": "training", "retraining": "training"}
_KWH_DIGITS = 15
_NAMESPACE = uuid.UUID("9f1c5c3e-5d55-5c50-a0a4-3a2f3d6f4c11")  # ours alone: the same sheet has the same serial number


def cyclonedx(sheet: Sheet) -> dict[str, Any]:
    """The BOM of a job or a product. Raises ValueError for what is no model: a node, a platform, a data set."""
    kind = sheet.kind if sheet.product is None else sheet.product.kind
    if kind in ("node", "platform", "dataset"):
        raise ValueError(f"a {kind} has no ML-BOM, which is about a model: ask for a job's or a model's")
    made_at = rfc3339(sheet.made_unix_ns)
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"{sheet.kind}/{sheet.id}",
        "name": sheet.id if sheet.job is None else sheet.job.product_id,
    }
    if sheet.product is not None and sheet.product.version:
        component["version"] = sheet.product.version
    consumptions = [_consumption(activity, costs, sheet) for activity, costs in _activities(sheet)]
    component["modelCard"] = {"considerations": {"environmentalConsiderations": {"energyConsumptions": consumptions}}}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{sheet.kind}/{sheet.id}/{made_at}')}",
        "version": 1,
        "metadata": {
            "timestamp": made_at,
            "tools": {"components": [{"type": "application", "name": "wattribute", "version": sheet.version}]},
        },
        "components": [component],
    }


def _activities(sheet: Sheet) -> list[tuple[str, Costs]]:
    found: dict[str, list[Costs]] = {}
    tuned = sheet.product is not None and bool(sheet.product.parents)
    for group in sheet.groups:
        activity = _BY_PHASE.get(group.phase) or _BY_ROLE.get(group.role, "other")
        if activity == "training" and tuned:
            activity = "fine-tuning"
        found.setdefault(activity, []).append(group.costs)
    return [(activity, Costs.of(many)) for activity, many in found.items()]


def _consumption(activity: str, costs: Costs, sheet: Sheet) -> dict[str, Any]:
    energy = {"value": decimal_of(sheet.used_kwh(costs.whole_uj, costs), _KWH_DIGITS), "unit": "kWh"}
    known = [name for name in (sheet.intensity.zone, sheet.intensity.provider) if name]
    sums = costs.sums_ng()
    return {
        "activity": activity,
        "energyProviders": [
            {
                "description": "the electricity grid",
                "organization": {"name": ", ".join(known) or "unknown"},
                "energySource": "unknown",
                "energyProvided": energy,
            }
        ],
        "activityEnergyCost": energy,
        "co2CostEquivalent": {"value": tonnes(sums["jsc"]), "unit": "tCO2eq"},
        "properties": [
            {"name": "wattribute:jobs", "value": str(costs.jobs)},
            {"name": "wattribute:hardware_gco2e", "value": plain(grams(costs.term_ng("hardware")))},
            {"name": "wattribute:asce_gco2e", "value": plain(grams(sums["asce"]))},
        ],
    }


__all__ = ["cyclonedx"]
