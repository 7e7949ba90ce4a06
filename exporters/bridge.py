"""A Collector for prometheus_client's registry: a service that already exposes metrics can expose these too.

`REGISTRY.register(WattributeCollector(lambda: snapshot))`. The same families and values as the agent's own page,
as floats: that client knows no others.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from wattribute.agent.core.model import Snapshot
from wattribute.exporters.batch import Labels, Number
from wattribute.exporters.families import batches
from wattribute.exporters.metric import Metric
from wattribute.exporters.metrics import METRICS


class WattributeCollector(Collector):
    """Yields the families of the snapshot that `snapshot` returns when the registry collects."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Family]:
        """The families without samples: registering must not need a snapshot."""
        return [_family(metric) for metric in METRICS]

    def collect(self) -> Iterator[Family]:
        """Every family that has series now."""
        for batch in batches(self._snapshot()):
            by_family = zip(*[owner.series() for owner in batch.owners], strict=True)
            for metric, series, column in zip(batch.metrics, by_family, batch.columns, strict=False):
                if column:
                    yield _filled(metric, list(chain.from_iterable(series)), column)


def _filled(metric: Metric, series: Sequence[Labels], column: Sequence[Number]) -> Family:
    family = _family(metric)
    if isinstance(family, HistogramMetricFamily):
        for place, labels in enumerate(series):
            first = place * metric.numbers
            *below, _count, total = column[first : first + metric.numbers]  # that client counts for itself
            family.add_metric(labels, list(zip(metric.le, below, strict=True)), _scaled(total, metric))
    else:
        for labels, number in zip(series, column, strict=True):
            family.add_metric(labels, _scaled(number, metric))
    return family


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    if metric.type == "histogram":
        return HistogramMetricFamily(metric.family, metric.help, labels=metric.labels, unit=metric.unit)
    family = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
    return family(metric.family, metric.help, labels=metric.labels, unit=metric.unit)


def _scaled(number: Number, metric: Metric) -> float:
    # Integers over a power of ten divide to the nearest float: what a parser makes of `1234567e-6` too.
    return number / 10**-metric.exponent if metric.exponent else number
