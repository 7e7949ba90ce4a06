"""What a test looks for among the readings of one read."""

from collections.abc import Sequence

from tests.doubles.nvml import GpuDouble

from wattribute.agent.core.model import Consumer, EnergyReading, Fault, PowerReading, ProcessId, Reading, UsageReading
from wattribute.collectors.nvml import NvmlCollector

S = 1_000_000_000


def energies(readings: Sequence[Reading]) -> dict[str, EnergyReading]:
    return {reading.domain.id: reading for reading in readings if isinstance(reading, EnergyReading)}


def powers(readings: Sequence[Reading]) -> list[PowerReading]:
    return [reading for reading in readings if isinstance(reading, PowerReading)]


def faults(readings: Sequence[Reading]) -> list[Fault]:
    return [reading for reading in readings if isinstance(reading, Fault)]


def busy(readings: Sequence[Reading]) -> dict[ProcessId, int]:
    return {
        r.consumer: r.busy_ns for r in readings if isinstance(r, UsageReading) and isinstance(r.consumer, ProcessId)
    }


def energy(collector: NvmlCollector, gpu: GpuDouble) -> EnergyReading:
    return energies(collector.read())[gpu.uuid]


def usage(readings: Sequence[Reading]) -> dict[Consumer, UsageReading]:
    return {reading.consumer: reading for reading in readings if isinstance(reading, UsageReading)}


def held(readings: Sequence[Reading]) -> dict[Consumer, int | None]:
    return {consumer: reading.held_ppb for consumer, reading in usage(readings).items()}
