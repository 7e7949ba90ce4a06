"""CodeCarbon's emissions.csv: one row per job, in its columns and their order (codecarbon 3.3).

KILOGRAMS of CO2e, kWh, watts and seconds. As CodeCarbon has it, energy and power hold the PUE already, and `emissions`
is operation with cooling (JSC). What isn't known is empty, never 0; a name that is like a formula gets a leading '.
"""

import csv
import io
from decimal import Decimal
from fractions import Fraction

from wattribute.agent.core.receipt import rfc3339
from wattribute.agent.core.records import JobRecord
from wattribute.agent.core.units import J_PER_KWH, NS_PER_S
from wattribute.exporters.ledger_csv import guarded
from wattribute.exporters.report.exact import decimal_of, kilograms, plain, rounded, seconds
from wattribute.exporters.report.sheet import Costs, Sheet

COLUMNS = (
    "timestamp",
    "project_name",
    "run_id",
    "experiment_id",
    "duration",
    "emissions",
    "emissions_rate",
    "cpu_power",
    "gpu_power",
    "ram_power",
    "cpu_energy",
    "gpu_energy",
    "ram_energy",
    "energy_consumed",
    "water_consumed",
    "country_name",
    "country_iso_code",
    "region",
    "cloud_provider",
    "cloud_region",
    "os",
    "python_version",
    "codecarbon_version",
    "cpu_count",
    "cpu_model",
    "gpu_count",
    "gpu_model",
    "longitude",
    "latitude",
    "ram_total_size",
    "tracking_mode",
    "cpu_utilization_percent",
    "gpu_utilization_percent",
    "ram_utilization_percent",
    "ram_used_gb",
    "on_cloud",
    "pue",
    "wue",
)
_DOMAINS = (("cpu", "cpu"), ("gpu", "gpu"), ("ram", "dram"))  # theirs and ours; `rest` is in energy_consumed alone
_FIGURES, _PUE_FIGURES = 15, 9


def codecarbon_csv(sheet: Sheet) -> str:
    """The jobs of a sheet (`Sheet.runs`) as CSV with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for job in sheet.runs:
        writer.writerow(
            {name: plain(value) if isinstance(value, Decimal) else guarded(value) for name, value in _row(job, sheet)}
        )
    return out.getvalue()


def _row(job: JobRecord, sheet: Sheet) -> list[tuple[str, Decimal | str]]:
    costs = Costs.of([job])
    end_unix_ns = sheet.made_unix_ns if job.ended_unix_ns is None else job.ended_unix_ns
    lasted = Fraction(max(0, end_unix_ns - job.started_unix_ns), NS_PER_S) if job.started_unix_ns else Fraction(0)
    emitted_ng = costs.sums_ng()["jsc"]
    by_domain = costs.energy_by(0)
    row: list[tuple[str, Decimal | str]] = [
        ("timestamp", (rfc3339(end_unix_ns) or "")[:19]),
        ("project_name", job.product_id),
        ("run_id", job.id),
        ("region", sheet.intensity.zone),
        ("codecarbon_version", f"wattribute {sheet.version}"),
        ("tracking_mode", "process"),
    ]
    if lasted:
        row.append(("duration", seconds(end_unix_ns - job.started_unix_ns)))
    if costs.electricity_known:
        row.append(("emissions", kilograms(emitted_ng)))
        if lasted:
            row.append(("emissions_rate", rounded(Fraction(emitted_ng, 10**12) / lasted, _FIGURES)))
    if by_domain:
        row.append(("energy_consumed", decimal_of(sheet.used_kwh(costs.whole_uj, costs), _FIGURES)))
    for theirs, ours in _DOMAINS:
        if ours not in by_domain:
            continue
        used_kwh = sheet.used_kwh(by_domain[ours], costs)
        row.append((f"{theirs}_energy", decimal_of(used_kwh, _FIGURES)))
        if lasted:
            row.append((f"{theirs}_power", rounded(used_kwh * J_PER_KWH / lasted, _FIGURES)))
    if sheet.pue is not None:
        row.append(("pue", rounded(sheet.pue_of(costs), _PUE_FIGURES)))
    return row


__all__ = ["COLUMNS", "codecarbon_csv"]
