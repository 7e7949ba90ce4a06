"""OTLP: the numbers of the page under the same names, pushed to a Collector that refuses, hangs and comes back."""

import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
from opentelemetry.proto.metrics.v1 import metrics_pb2 as metrics
from tests.doubles.otlp_collector import Collector, Point, points
from tests.exporters.reading import samples
from tests.exporters.snapshots import NOW_NS, SECOND_NS, jobs, served, snapshot

from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.model import Job, JobTotals, Snapshot, SourceHealth
from wattribute.exporters.metrics import METRIC, METRICS
from wattribute.exporters.otlp import POINTS, UNITS, OtlpEncoder
from wattribute.exporters.otlp_push import OtlpPusher
from wattribute.exporters.prometheus import PrometheusPage

STARTED_NS = NOW_NS - 30 * SECOND_NS


@pytest.fixture(scope="module")
def encoder() -> OtlpEncoder:
    return OtlpEncoder(host_name="n1.example", started_unix_ns=STARTED_NS)


def decoded(encoder: OtlpEncoder, of: Snapshot) -> list[service.ExportMetricsServiceRequest]:
    return [decode(body) for body in encoder.requests(of)]


def decode(body: bytes) -> service.ExportMetricsServiceRequest:
    request = service.ExportMetricsServiceRequest()
    request.MergeFromString(body)
    return request


def key(point: Point) -> tuple[str, frozenset[tuple[str, str]]]:
    return point.metric.name, frozenset(point.attributes.items())


def test_every_number_of_the_page_is_in_it_once_and_no_other(encoder: OtlpEncoder) -> None:
    of = snapshot(jobs(7), served=[served("product-0"), served("product-1", tenants=("",))])
    page = PrometheusPage()
    page.publish(of)
    shown = samples(page.text())
    found: dict[Any, float] = {}
    for point in points(decoded(encoder, of)):
        if point.metric.name == "hw.energy":
            continue
        name, labels = key(point)
        if isinstance(point.number, metrics.HistogramDataPoint):
            below = 0
            for end, count in zip(METRIC[name].le, point.number.bucket_counts, strict=True):
                below += count
                found[f"{name}_bucket", labels | {("le", end)}] = below
            assert below == point.number.count
            found[f"{name}_count", labels] = point.number.count
            name = f"{name}_sum"
        assert (name, labels) not in found
        found[name, labels] = point.value
    assert found == {series: float(value) for series, value in shown.items()}


def test_counters_are_cumulative_sums_since_the_job_the_agent_or_the_ledger_began(encoder: OtlpEncoder) -> None:
    job = Job(id="j", started_unix_ns=NOW_NS - 60 * SECOND_NS)
    of = snapshot(
        [JobTotals(job=job, values=[7] * 100), JobTotals(job=Job(id="_retired"), values=[1] * 100, info=False)]
    )
    since = {}
    for point in points(decoded(encoder, of)):
        kind = point.metric.WhichOneof("data")
        assert kind == ("sum" if point.metric.name.endswith("_total") or point.metric.name == "hw.energy" else "gauge")
        assert point.number.time_unix_nano == NOW_NS
        if kind == "sum":
            assert point.metric.sum.is_monotonic
            assert point.metric.sum.aggregation_temporality == metrics.AGGREGATION_TEMPORALITY_CUMULATIVE
            since[point.metric.name, point.attributes.get("job_id", "")] = point.number.start_time_unix_nano
    assert since["wattribute_job_energy_joules_total", "j"] == job.started_unix_ns
    assert since["wattribute_job_energy_joules_total", "_retired"] == of.ledger_created_unix_ns
    assert since["wattribute_node_energy_joules_total", ""] == of.ledger_created_unix_ns
    assert since["wattribute_agent_energy_joules_total", ""] == of.ledger_created_unix_ns
    assert since["wattribute_agent_ticks_total", ""] == since["wattribute_source_failures_total", ""] == STARTED_NS


def test_hw_energy_is_the_nodes_domains_by_component(encoder: OtlpEncoder) -> None:
    of = snapshot(jobs(3))
    found = {
        (p.attributes["hw.id"], p.attributes["hw.type"]): p.value
        for p in points(decoded(encoder, of))
        if p.metric.name == "hw.energy"
    }
    assert set(found) == {
        ("cpu-package-0", "cpu"),
        ("cpu-package-1", "cpu"),
        ("memory-package-0", "memory"),
        ("GPU-11111111", "gpu"),
        ("GPU-22222222", "gpu"),
    }
    assert sum(map(Decimal, found.values())) == pytest.approx(Decimal(sum(of.node_energy_uj.values())) / 10**6)


def test_units_are_ucum_and_the_resource_names_the_node(encoder: OtlpEncoder) -> None:
    assert {metric.unit for metric in METRICS} <= UNITS.keys()
    (request,) = decoded(encoder, snapshot(jobs(1)))
    (of_resource,) = request.resource_metrics
    assert {one.key: one.value.string_value for one in of_resource.resource.attributes} == {
        "service.name": "wattribute",
        "service.version": "0.1.0",
        "service.instance.id": "node-a",
        "host.id": "node-a",
        "host.name": "n1.example",
    }
    units = {metric.name: metric.unit for metric in of_resource.scope_metrics[0].metrics}
    assert units["wattribute_job_energy_joules_total"] == units["hw.energy"] == "J"
    assert units["wattribute_agent_resident_memory_bytes"] == "By"


def test_many_series_are_several_requests_that_hold_each_once(encoder: OtlpEncoder) -> None:
    of = snapshot(jobs(150))
    found = decoded(encoder, of)
    assert len(found) > 1
    counts = [sum(1 for _ in points([request])) for request in found]
    assert all(count == POINTS for count in counts[:-1])
    assert 0 < counts[-1] <= POINTS
    keys = [key(point) for point in points(found)]
    assert len(keys) == len(set(keys))


def test_without_the_package_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.proto.collector.metrics.v1", None)
    with pytest.raises(ConfigError, match=r"pip install 'wattribute\[otlp\]'"):
        OtlpEncoder(host_name="", started_unix_ns=0)


# Pushing


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


class Pushing:
    """A pusher that is fed as the daemon does it, far more often."""

    def __init__(self, url: str, encoder: OtlpEncoder, *, timeout_s: float = 5.0, **environment: str) -> None:
        self.of = snapshot(jobs(2))
        self.pusher = OtlpPusher(url, encoder, environment, interval_s=0.05, timeout_s=timeout_s, first_backoff_s=0.02)

    @property
    def health(self) -> SourceHealth | None:
        return next(self.pusher.health(), None)

    def until(self, condition: Callable[[], bool]) -> None:
        until_s = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < until_s
            if self.pusher.wanted:
                self.pusher.publish(self.of)
            time.sleep(0.002)


@pytest.fixture
def push(collector: Collector, encoder: OtlpEncoder) -> Iterator[Callable[..., Pushing]]:
    made: list[Pushing] = []

    def make(**more: Any) -> Pushing:
        made.append(Pushing(more.pop("url", collector.url), encoder, **more))
        return made[-1]

    yield make
    collector.let_go.set()
    for one in made:
        one.pusher.close()


def state(pushing: Pushing) -> tuple[bool, dict[str, int]]:
    health = pushing.health
    assert health is not None
    return health.up, dict(health.failures)


def test_it_pushes_at_its_interval_with_the_headers_of_the_environment(
    collector: Collector, push: Callable[..., Pushing]
) -> None:
    pushing = push(
        OTEL_EXPORTER_OTLP_HEADERS="x-scope=a%20b, api-key=k=1", OTEL_EXPORTER_OTLP_METRICS_HEADERS="api-key=2"
    )
    assert pushing.health is None
    pushing.until(lambda: len(collector.requests) >= 2)
    assert set(collector.paths) == {"/v1/metrics"}
    assert collector.headers[0]["Content-Type"] == "application/x-protobuf"
    assert (collector.headers[0]["x-scope"], collector.headers[0]["api-key"]) == ("a b", "2")
    pushing.until(lambda: pushing.health is not None)
    assert state(pushing) == (True, {})


def test_a_refusal_is_told_and_what_follows_holds_it_all(collector: Collector, push: Callable[..., Pushing]) -> None:
    collector.answers = [(503, {}, b""), (429, {"Retry-After": "0"}, b"")]
    pushing = push()
    pushing.until(lambda: pushing.health is not None)
    health = pushing.health
    assert health is not None
    assert (health.up, "503" in health.why, health.fix != "") == (False, True, True)
    pushing.until(lambda: bool(collector.requests))
    pushing.until(lambda: state(pushing) == (True, {"http_503": 1, "http_429": 1}))


def test_a_collector_that_hangs_or_isnt_there_is_a_failure(collector: Collector, push: Callable[..., Pushing]) -> None:
    collector.answers = [None]
    hanging, nobody = push(timeout_s=0.05), push(url="http://127.0.0.1:9/base")
    hanging.until(lambda: hanging.health is not None)
    nobody.until(lambda: nobody.health is not None)
    assert state(hanging)[1] == {"timeout": 1}
    assert state(nobody)[1]["unreachable"] >= 1
    hanging.until(lambda: state(hanging)[0])


def test_a_collector_that_takes_only_a_part_says_why(collector: Collector, push: Callable[..., Pushing]) -> None:
    answer = service.ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points, answer.partial_success.error_message = 3, "too old"
    collector.answers = [(200, {}, answer.SerializeToString())]
    pushing = push()
    pushing.until(lambda: pushing.health is not None)
    health = pushing.health
    assert health is not None
    assert (health.up, dict(health.failures)) == (False, {"rejected": 1})
    assert "3 points: too old" in health.why


def test_closing_waits_for_nothing_that_hangs(collector: Collector, push: Callable[..., Pushing]) -> None:
    collector.answers = [None]
    pushing = push()
    pushing.until(lambda: bool(collector.paths))
    closing = threading.Thread(target=pushing.pusher.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


def test_the_last_figures_are_pushed_at_the_end(collector: Collector, push: Callable[..., Pushing]) -> None:
    pushing = push()
    pushing.until(lambda: bool(collector.requests))
    pushing.pusher.finish(snapshot(jobs(3)), 20.0)
    shown = {point.attributes.get("job_id") for point in points(collector.requests[-1:])}
    assert {job.job.id for job in jobs(3)} <= shown


def test_the_last_figures_arent_forced_on_who_asked_for_quiet(
    collector: Collector, push: Callable[..., Pushing]
) -> None:
    collector.answers = [(503, {"Retry-After": "60"}, b"")]
    pushing = push()
    pushing.until(lambda: pushing.health is not None)
    pushing.pusher.finish(pushing.of, 20.0)
    assert len(collector.paths) == 1


def test_encoding_breathes_often(encoder: OtlpEncoder) -> None:
    breaths: list[None] = []
    of = snapshot(jobs(150))
    found = list(encoder.requests(of, lambda: breaths.append(None)))
    assert len(breaths) * 150 >= sum(1 for body in found for _ in points([decode(body)]))


@pytest.mark.parametrize("text", ["a=b\x00", "k=%0d%0aHost: x", "ü=1", "a:b=c", "a%20b=c"])
def test_headers_that_cant_be_are_refused_at_the_start(encoder: OtlpEncoder, text: str) -> None:
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_HEADERS"):
        Pushing("http://127.0.0.1:9", encoder, OTEL_EXPORTER_OTLP_HEADERS=text)


def test_a_certificate_that_cant_be_used_is_refused_at_the_start(encoder: OtlpEncoder) -> None:
    with pytest.raises(ConfigError, match="certificate"):
        Pushing("https://127.0.0.1:9", encoder, OTEL_EXPORTER_OTLP_CERTIFICATE="/nowhere/ca.pem")
