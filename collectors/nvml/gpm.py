"""How busy the SMs of each GPU instance of one board were, by NVML's GPU performance monitoring (Hopper and newer).

A metric is the difference of two samples. Drivers have answered more than 100 % (DCGM#152), so it is capped.
Source: nvml.h, nvmlGpmMetricsGet.
"""

from contextlib import suppress
from math import isnan
from typing import Any, Final

from wattribute.collectors.nvml.library import Nvml

APART_NS: Final = 100_000_000
"""Two samples must be more than this apart (nvml.h)."""


class _Pair:
    """Two sample buffers of one GPU instance, the older one filled; `ppm` is None until both were."""

    __slots__ = ("at_ns", "identity", "ppm", "samples")

    def __init__(self, identity: object, samples: list[Any], at_ns: int) -> None:
        self.identity, self.samples, self.at_ns = identity, samples, at_ns
        self.ppm: int | None = None


class Activity:
    """The SM activity of one board's GPU instances. All calls go to the board: a MIG handle isn't for GPM."""

    def __init__(self, nvml: Nvml, board: Any) -> None:
        self._nvml = nvml
        self._board = board
        self._pairs: dict[int, _Pair] = {}
        self._question = nvml.c_nvmlGpmMetricsGet_t()  # 19 KB: asked again and again
        self._question.version = nvml.NVML_GPM_METRICS_GET_VERSION
        self._question.numMetrics = 2
        self._question.metrics[0].metricId = nvml.NVML_GPM_METRIC_SM_UTIL
        self._question.metrics[1].metricId = nvml.NVML_GPM_METRIC_GRAPHICS_UTIL

    def is_supported(self) -> bool:
        """Whether this board has GPM; raises NVMLError where the driver doesn't know the question."""
        return bool(self._nvml.nvmlGpmQueryDeviceSupport(self._board).isSupportedDevice)

    def read(self, gpu_instance: int, identity: object, at_ns: int) -> int | None:
        """Busy SMs of a GPU instance in parts per million since the sample before, at least 100 ms ago.

        None until there are two. An id is reused for other instances: another `identity` starts anew. Raises NVMLError.
        """
        pair = self._pairs.get(gpu_instance)
        if pair is None or pair.identity != identity:
            self._free(gpu_instance)
            self._begin(gpu_instance, identity, at_ns)
            return None
        if at_ns - pair.at_ns > APART_NS:
            older, newer = pair.samples
            self._nvml.nvmlGpmMigSampleGet(self._board, gpu_instance, newer)
            pair.samples, pair.at_ns = [newer, older], at_ns
            percent = self._percent(older, newer)
            if percent is not None:
                pair.ppm = round(min(max(percent, 0.0), 100.0) * 10_000)
        return pair.ppm

    def keep(self, gpu_instances: set[int]) -> None:
        """Frees what belongs to any other instance."""
        for gone in self._pairs.keys() - gpu_instances:
            self._free(gone)

    def close(self) -> None:
        """Frees all samples, before the session ends."""
        self.keep(set())

    def _begin(self, gpu_instance: int, identity: object, at_ns: int) -> None:
        pair = _Pair(identity, [self._nvml.nvmlGpmSampleAlloc()], at_ns)
        self._pairs[gpu_instance] = pair  # from here on it is freed, whatever fails
        pair.samples.append(self._nvml.nvmlGpmSampleAlloc())
        try:
            self._nvml.nvmlGpmMigSampleGet(self._board, gpu_instance, pair.samples[0])
        except self._nvml.NVMLError:
            self._free(gpu_instance)
            raise

    def _percent(self, older: Any, newer: Any) -> float | None:
        nvml, question = self._nvml, self._question
        question.sample1, question.sample2 = older, newer
        nvml.nvmlGpmMetricsGet(question)
        failed = nvml.NVML_SUCCESS
        for metric in question.metrics[:2]:
            if metric.nvmlReturn == nvml.NVML_SUCCESS:
                # No time between two samples makes it not a number.
                return None if isnan(metric.value) else float(metric.value)
            failed = metric.nvmlReturn
        raise nvml.NVMLError(failed)

    def _free(self, gpu_instance: int) -> None:
        pair = self._pairs.pop(gpu_instance, None)
        for sample in pair.samples if pair else ():
            with suppress(self._nvml.NVMLError):  # a driver that is gone has no buffer to take back
                self._nvml.nvmlGpmSampleFree(sample)
