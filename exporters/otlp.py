"""A snapshot in OpenTelemetry's metrics protocol (OTLP): the families of `/metrics` under the same names, as protobuf.

Counters are cumulative monotonic sums, from the ledger's creation or the job's start on; joules, grams and seconds are
doubles. Beside them OpenTelemetry's own `hw.energy` of each processor, memory zone and GPU, in joules.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.model import DomainKind, Snapshot
from wattribute.exporters.batch import Labels, Number, cleaned
from wattribute.exporters.families import batches
from wattribute.exporters.metric import Metric

if TYPE_CHECKING:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as OtlpMetric

POINTS = 5000
"""In one request at most: some 0.6 MB, of the 20 that a Collector takes by default."""
PIECE_POINTS, PIECE_OWNERS = 150, 50
"""So many are worked on between two breaths: about 1 ms."""
UNITS: Mapping[str, str] = {  # UCUM; what is in braces is a note, which no converter turns into a suffix of the name
    "joules": "J",
    "grams": "g",
    "seconds": "s",
    "watts": "W",
    "bytes": "By",
    "ratio": "1",
    "grams_per_joule": "{g/J}",
    "": "",
}
HARDWARE: Mapping[DomainKind, str] = {"cpu": "cpu", "dram": "memory", "gpu": "gpu"}
"""`hw.type` by the kind of a domain; what is left of a node ("rest") is no component."""
_HW_ENERGY = Metric("hw.energy", "Node", "Energy consumed by the component.", ("hw.id", "hw.type"), "joules", -6)
# What starts at 0 with the agent's process; everything else goes on from its ledger.
_OF_PROCESS = tuple(f"wattribute_{name}_" for name in ("agent_ticks", "agent_cpu", "source", "counter", "web"))
_DOUBLE_UNITS = {"joules", "grams", "seconds", "watts", "grams_per_joule", "ratio"}


class OtlpEncoder:
    """Makes the requests of a snapshot. Raises ConfigError where the package isn't installed."""

    def __init__(self, *, host_name: str, started_unix_ns: int) -> None:
        try:
            from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
            from opentelemetry.proto.metrics.v1 import metrics_pb2
        except ImportError as error:
            raise ConfigError(
                f"otlp.endpoint needs {error.name}, which isn't installed. Fix: pip install 'wattribute[otlp]'"
            ) from error
        self._service = metrics_service_pb2
        self._cumulative = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
        self._host_name = host_name
        self._started_unix_ns = started_unix_ns

    def requests(self, snapshot: Snapshot, breathe: Callable[[], None] = lambda: None) -> Iterator[bytes]:
        """Serialised requests of at most POINTS points each; made one by one, so that one at a time is in memory.

        `breathe` is called after about each millisecond of work: others may want the interpreter.
        """
        request, metrics = self._new(snapshot)
        room = POINTS
        for metric, series, numbers in _columns(snapshot, breathe):
            since = _Since(snapshot, metric, self._started_unix_ns)
            into: OtlpMetric | None = None
            at = 0
            while at < len(series):
                if room == 0:
                    yield bytes(request.SerializeToString())
                    request, metrics = self._new(snapshot)
                    room, into = POINTS, None
                into = self._add(metrics, metric) if into is None else into
                end = min(at + room, at + PIECE_POINTS, len(series))
                used = numbers[at * metric.numbers : end * metric.numbers]
                _fill(into, metric, series[at:end], used, since, snapshot.taken_at_unix_ns)
                room -= end - at
                at = end
                breathe()
        if room < POINTS:
            yield bytes(request.SerializeToString())

    def rejected(self, body: bytes) -> tuple[int, str]:
        """How many points a Collector didn't take of a request that it answered with 200, and why."""
        answer = self._service.ExportMetricsServiceResponse()
        try:
            answer.MergeFromString(body)
        except Exception:  # noqa: BLE001 - protobuf's error has no public name; an answer that is none says nothing
            return 0, ""
        return answer.partial_success.rejected_data_points, answer.partial_success.error_message

    def _add(self, metrics: Any, metric: Metric) -> "OtlpMetric":
        into: OtlpMetric = metrics.add(name=metric.name, description=metric.help, unit=UNITS[metric.unit])
        if metric.type == "histogram":
            into.histogram.aggregation_temporality = self._cumulative
        elif metric.type == "counter" or metric is _HW_ENERGY:
            into.sum.aggregation_temporality, into.sum.is_monotonic = self._cumulative, True
        return into

    def _new(self, snapshot: Snapshot) -> "tuple[ExportMetricsServiceRequest, Any]":
        request = self._service.ExportMetricsServiceRequest()
        of_resource = request.resource_metrics.add()
        for name, text in (
            ("service.name", "wattribute"),
            ("service.version", snapshot.version),
            ("service.instance.id", snapshot.node_id),
            ("host.id", snapshot.node_id),
            ("host.name", self._host_name),
        ):
            of_resource.resource.attributes.add(key=name).value.string_value = text
        of_scope = of_resource.scope_metrics.add()
        of_scope.scope.name, of_scope.scope.version = "wattribute", snapshot.version
        return request, of_scope.metrics


class _Since:
    """When the sums of a family began to count, by series (Unix time in ns)."""

    def __init__(self, snapshot: Snapshot, metric: Metric, started_unix_ns: int) -> None:
        of_process = metric.name.startswith(_OF_PROCESS)
        self._else = started_unix_ns if of_process else snapshot.ledger_created_unix_ns
        self._of_job: dict[str, int] = {}
        if metric.labels[:1] == ("job_id",):
            self._of_job = {cleaned((t.job.id,))[0]: t.job.started_unix_ns for t in snapshot.jobs if t.info}

    def __call__(self, labels: Labels) -> int:
        return (self._of_job.get(labels[0]) or self._else) if self._of_job else self._else


def _columns(
    snapshot: Snapshot, breathe: Callable[[], None]
) -> Iterator[tuple[Metric, Sequence[Labels], Sequence[Number]]]:
    """Each family with the labels of its series, and their numbers."""
    for batch in batches(snapshot):
        by_family: list[list[Labels]] = [[] for _ in batch.metrics]
        for place, owner in enumerate(batch.owners, start=1):
            for labels, of_owner in zip(by_family, owner.series(), strict=True):
                labels += of_owner
            if place % PIECE_OWNERS == 0:
                breathe()
        yield from zip(batch.metrics, by_family, batch.columns, strict=True)
    energy_uj: dict[Labels, int] = {}
    for (kind, device, _), uj in snapshot.node_energy_uj.items():
        if kind in HARDWARE:
            # Memory and processor of a package have one name; a GPU's is unique as it is.
            name = device if kind == "gpu" else f"{HARDWARE[kind]}-{device}"
            key = (*cleaned((name,)), HARDWARE[kind])
            energy_uj[key] = energy_uj.get(key, 0) + uj
    if energy_uj:
        yield _HW_ENERGY, list(energy_uj), list(energy_uj.values())


def _fill(
    into: "OtlpMetric", metric: Metric, series: Sequence[Labels], numbers: Sequence[Number], since: _Since, at_ns: int
) -> None:
    if metric.type == "histogram":
        _fill_histogram(into, metric, series, numbers, since, at_ns)
        return
    is_sum = into.HasField("sum")
    points = into.sum.data_points if is_sum else into.gauge.data_points
    as_double = metric.exponent != 0 or metric.unit in _DOUBLE_UNITS
    scale = 10 ** -(metric.exponent or 0)
    for labels, number in zip(series, numbers, strict=True):
        point = points.add(time_unix_nano=at_ns)
        if is_sum:
            point.start_time_unix_nano = min(since(labels), at_ns)
        if as_double:
            point.as_double = number / scale  # of two integers: the nearest double
        else:
            point.as_int = int(number)
        for name, text in zip(metric.labels, labels, strict=True):
            point.attributes.add(key=name).value.string_value = text


def _fill_histogram(
    into: "OtlpMetric", metric: Metric, series: Sequence[Labels], numbers: Sequence[Number], since: _Since, at_ns: int
) -> None:
    scale = 10 ** -(metric.exponent or 0)
    for place, labels in enumerate(series):
        *cumulative, count, total = numbers[place * metric.numbers : (place + 1) * metric.numbers]
        point = into.histogram.data_points.add(time_unix_nano=at_ns, count=int(count), sum=total / scale)
        point.start_time_unix_nano = min(since(labels), at_ns)
        point.explicit_bounds.extend([end / scale for end in metric.buckets])
        point.bucket_counts.extend([int(n - before) for before, n in zip([0, *cumulative], cumulative, strict=False)])
        for name, text in zip(metric.labels, labels, strict=True):
            point.attributes.add(key=name).value.string_value = text


__all__ = ["HARDWARE", "POINTS", "UNITS", "OtlpEncoder"]
