"""What a tick costs: its energy at the price of each window, and what products' own jobs came to in it.

Energy in microjoules, masses in nanograms, times in nanoseconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from wattribute.agent.core.accounting import Price, accrue_energy, accrue_hardware
from wattribute.agent.core.claims import Entry
from wattribute.agent.core.model import TERM_SLOT
from wattribute.agent.core.prices import PriceSeries
from wattribute.agent.core.tariff import Metered

Booked: TypeAlias = tuple[int, Mapping[str, int]]
"""A slot of the totals, and the microjoules by job id that go there."""

_OPERATION, _COOLING, _HARDWARE = TERM_SLOT["operation"], TERM_SLOT["cooling"], TERM_SLOT["hardware"]


class Bill:
    """The energy of one tick, kept by what it costs until the jobs are visited: once, where there is one price."""

    def __init__(self, prices: PriceSeries, now_ns: int, unix_ns: int) -> None:
        self._prices = prices
        self._now_ns = now_ns
        self._unix_offset_ns = unix_ns - now_ns
        self._price_from: dict[int, Price] = {}
        self._booked: dict[Price, list[Booked]] = {}

    def price_from(self, start_ns: int) -> Price:
        """The price of energy used evenly from a moment until this tick."""
        price = self._price_from.get(start_ns)
        if price is None:
            times_ns = start_ns + self._unix_offset_ns, self._now_ns + self._unix_offset_ns
            price = self._price_from[start_ns] = self._prices.over(*times_ns)
        return price

    def add(self, price: Price, booked: Booked) -> None:
        """Energy of jobs at a price."""
        self._booked.setdefault(price, []).append(booked)

    def settle(self, jobs: Mapping[str, Entry], held: Mapping[str, int]) -> tuple[int, int, int]:
        """Bill the jobs, and what each owes of the hardware (rate * ns); returns the nanograms added to operation,
        cooling and hardware.
        """
        operation_ng = cooling_ng = hardware_ng = 0
        for price, booked in self._booked.items():
            added_ng = _bill(jobs, booked, price)
            operation_ng += added_ng[0]
            cooling_ng += added_ng[1]
        for job_id, numerator in held.items():
            entry = jobs[job_id]
            entry.changed = True
            hardware_ng += accrue_hardware(entry.values, numerator)
        return operation_ng, cooling_ng, hardware_ng


def _bill(jobs: Mapping[str, Entry], booked: Sequence[Booked], price: Price) -> tuple[int, int]:
    operation_ng = cooling_ng = 0
    for job_id, entry in jobs.items():
        values = entry.values
        energy_uj = 0
        for slot, by_job in booked:
            part_uj = by_job.get(job_id)
            if part_uj:
                values[slot] += part_uj
                energy_uj += part_uj
        if energy_uj:
            entry.changed = True
            added = accrue_energy(values, energy_uj, price)
            operation_ng += added[0]
            cooling_ng += added[1]
    return operation_ng, cooling_ng


class Meter:
    """What products' own jobs (roles platform and retraining) come to between two looks at their totals."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._before = [(entry, *_costs(entry)) for entry in entries]

    def read(self) -> dict[str, Metered]:
        """What has been added since, by product."""
        found: dict[str, list[int]] = {}
        for entry, jsc_ng, hardware_ng in self._before:
            now_ng = _costs(entry)
            sums = found.setdefault(entry.job.product_id, [0, 0, 0, 0])
            place = 0 if entry.job.role == "platform" else 2
            sums[place] += now_ng[0] - jsc_ng
            sums[place + 1] += now_ng[1] - hardware_ng
        return {product_id: Metered(*sums) for product_id, sums in found.items() if any(sums)}


def _costs(entry: Entry) -> tuple[int, int]:
    values = entry.values
    return values[_OPERATION] + values[_COOLING], values[_HARDWARE]
