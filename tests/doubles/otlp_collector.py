"""An OpenTelemetry Collector's OTLP/HTTP receiver: takes protobuf; it can be told to refuse, to hang, to complain."""

import gzip
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
from opentelemetry.proto.metrics.v1 import metrics_pb2 as metrics


class Point(NamedTuple):
    """One data point, of whatever kind."""

    metric: metrics.Metric
    number: metrics.NumberDataPoint | metrics.HistogramDataPoint
    attributes: dict[str, str]

    @property
    def value(self) -> float:
        """Of a number; of a histogram its sum."""
        if isinstance(self.number, metrics.HistogramDataPoint):
            return self.number.sum
        return self.number.as_double if self.number.HasField("as_double") else float(self.number.as_int)


def points(requests: "list[service.ExportMetricsServiceRequest]") -> Iterator[Point]:
    """All data points of some requests."""
    for request in requests:
        for of_resource in request.resource_metrics:
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    kind = getattr(metric, str(metric.WhichOneof("data")))
                    for point in kind.data_points:
                        attributes = {one.key: one.value.string_value for one in point.attributes}
                        assert len(attributes) == len(point.attributes)
                        yield Point(metric, point, attributes)


class Collector:
    """Listens on a free port until the end of its `with`. `answers` are given in turn, then 200; None: says nothing."""

    def __init__(self) -> None:
        self.requests: list[service.ExportMetricsServiceRequest] = []
        self.headers: list[Mapping[str, str]] = []
        self.paths: list[str] = []
        self.answers: list[tuple[int, dict[str, str], bytes] | None] = []
        self.let_go = threading.Event()
        outer = self

        class Receiver(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.paths.append(self.path)
                outer.headers.append(dict(self.headers.items()))
                body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
                answer = outer.answers.pop(0) if outer.answers else (200, {}, b"")
                if answer is None:
                    outer.let_go.wait(30)
                    self.close_connection = True
                    return
                status, headers, said = answer
                if status == 200:
                    outer.requests.append(service.ExportMetricsServiceRequest.FromString(body))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(said)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "Collector":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
