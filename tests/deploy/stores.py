"""A real Prometheus and a real VictoriaMetrics on 127.0.0.1, scraping what they are told, and how they are asked."""

import http.client
import json
import os
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tests.e2e.running import free_port
from tests.tools import require

READY_S = 30.0


class QueryError(Exception):
    """The store refused a query; says why."""


class Series(NamedTuple):
    """One series of an answer; an instant query's has one point. Values are the exact decimal text."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, Decimal]]

    @property
    def value(self) -> Decimal:
        return self.points[-1][1]


def exact_s(seconds: float) -> float:
    """The eighth of a second before: VictoriaMetrics cuts milliseconds off a time that isn't exact in binary, and then
    a range may lack its last step."""
    return int(seconds * 8) / 8


class Store:
    """Prometheus' HTTP API of a store that runs as process `pid`. Times are Unix seconds.

    `rules_url` is the page of metrics of who evaluates its rules.
    """

    def __init__(self, name: str, port: int, pid: int, *, rules_port: int | None = None) -> None:
        self.name = name
        self.rules_url = f"http://127.0.0.1:{rules_port or port}/metrics"
        self.url = f"http://127.0.0.1:{port}"
        self.pid = pid
        self._link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def query(self, expr: str, at_s: float | None = None) -> list[Series]:
        """The query at one moment, by default now; QueryError where the store refuses it."""
        asked = {"query": expr, "nocache": "1"} | ({} if at_s is None else {"time": f"{at_s:.3f}"})
        return _series(self._ask("/api/v1/query", asked))

    def query_range(self, expr: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """The query at each step of a range, as a graph asks."""
        times = {"start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:.3f}"}
        return _series(self._ask("/api/v1/query_range", {"query": expr, "nocache": "1", **times}))

    def label_values(self, label: str, selector: str, start_s: float, end_s: float) -> list[str]:
        """What a variable's `label_values(selector, label)` lists."""
        asked = {"start": f"{start_s:.3f}", "end": f"{end_s:.3f}"} | ({"match[]": selector} if selector else {})
        found: list[str] = self._ask(f"/api/v1/label/{label}/values", asked, method="GET")
        return found

    def flush(self) -> None:
        """What was scraped until now can be queried: VictoriaMetrics keeps it back for about a second."""
        if self.name == "victoria-metrics":
            try:
                self._said("/internal/force_flush", "", "GET")
            except ConnectionError:
                self._link.close()
                self._said("/internal/force_flush", "", "GET")

    @property
    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    @property
    def cpu_s(self) -> float:
        return time.clock_gettime_ns((~self.pid << 3) | 2) / 1e9

    def close(self) -> None:
        self._link.close()

    def _said(self, path: str, form: str, method: str) -> bytes:
        if method == "GET":
            self._link.request("GET", f"{path}?{form}")
        else:
            self._link.request("POST", path, form, {"Content-Type": "application/x-www-form-urlencoded"})
        return self._link.getresponse().read()

    def _ask(self, path: str, asked: Mapping[str, str], *, method: str = "POST") -> Any:
        form = urllib.parse.urlencode(asked)
        try:
            body = self._said(path, form, method)
        except ConnectionError:  # a connection that was long idle is closed by the store
            self._link.close()
            body = self._said(path, form, method)
        try:
            said = json.loads(body)
        except ValueError:
            raise QueryError(f"{self.name}: {body[:300]!r}") from None
        if said.get("status") != "success":
            raise QueryError(f"{self.name}: {said.get('error', body[:300])}")
        return said["data"]


def _series(data: Mapping[str, Any]) -> list[Series]:
    if data["resultType"] == "scalar":
        return [Series({}, [_point(data["result"])])]
    return [
        Series(one["metric"], [_point(point) for point in one.get("values", [one.get("value")])])
        for one in data["result"]
    ]


def _point(point: Sequence[Any]) -> tuple[float, Decimal]:
    return float(point[0]), Decimal(point[1])


class Scrape(NamedTuple):
    """What is scraped: each target is host:port and labels of its own (`instance`, `__metrics_path__`)."""

    job: str
    targets: Sequence[tuple[str, Mapping[str, str]]]
    interval: str


def fast_rules(files: Sequence[Path], folder: Path, interval: str) -> list[Path]:
    """The same rules, evaluated as often as this."""
    folder.mkdir()
    found = []
    for file in files:
        content = yaml.safe_load(file.read_text())
        for group in content["groups"]:
            group["interval"] = interval
        (folder / file.name).write_text(json.dumps(content))  # JSON is YAML
        found.append(folder / file.name)
    return found


@contextmanager
def prometheus(folder: Path, scrapes: Sequence[Scrape], rules: Sequence[Path] = ()) -> Iterator[Store]:
    """A Prometheus with its data in `folder`; it is ended at the end."""
    port = free_port()
    config = _config(folder / "prometheus.yml", scrapes, rules)
    command = [require("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'prometheus'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with _running(command, folder / "prometheus.log") as pid:
        store = Store("prometheus", port, pid)
        _wait_for(port, "/-/ready", folder / "prometheus.log")
        yield store
        store.close()


@contextmanager
def victoria_metrics(folder: Path, scrapes: Sequence[Scrape], rules: Sequence[Path] = ()) -> Iterator[Store]:
    """A VictoriaMetrics with its data in `folder`, and a vmalert where there are rules; they are ended at the end."""
    port, rules_port = free_port(), free_port()
    config = _config(folder / "victoria.yml", scrapes, ())
    command = [require("victoria-metrics"), f"-promscrape.config={config}", f"-storageDataPath={folder / 'victoria'}"]
    # By default queries don't see the last 30 s (search.latencyOffset): a scene here is over by then.
    command += [f"-httpListenAddr=127.0.0.1:{port}", "-search.latencyOffset=0s", "-loggerLevel=ERROR"]
    command += ["-search.cacheTimestampOffset=1h", "-memory.allowedPercent=20"]
    with ExitStack() as stack:
        pid = stack.enter_context(_running(command, folder / "victoria.log"))
        store = Store("victoria-metrics", port, pid, rules_port=rules_port)
        stack.callback(store.close)
        _wait_for(port, "/health", folder / "victoria.log")
        if rules:
            alert = [require("vmalert"), *(f"-rule={file}" for file in rules), "-remoteWrite.flushInterval=100ms"]
            alert += [f"-datasource.url={store.url}", f"-remoteWrite.url={store.url}", "-loggerLevel=ERROR"]
            # Alerts go nowhere: this refuses connections.
            alert += [f"-notifier.url=http://127.0.0.1:{free_port()}", f"-httpListenAddr=127.0.0.1:{rules_port}"]
            stack.enter_context(_running(alert, folder / "vmalert.log"))
        yield store


def _config(path: Path, scrapes: Sequence[Scrape], rules: Sequence[Path]) -> Path:
    jobs = [
        {
            "job_name": scrape.job,
            "scrape_interval": scrape.interval,
            "scrape_timeout": scrape.interval,
            "static_configs": [{"targets": [address], "labels": labels} for address, labels in scrape.targets],
        }
        for scrape in scrapes
    ]
    content: dict[str, object] = {"scrape_configs": jobs}
    if rules:
        content["rule_files"] = [str(file) for file in rules]
    path.write_text(json.dumps(content))
    return path


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[int]:
    with log.open("ab") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(port: int, path: str, log: Path) -> None:
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            link.request("GET", path)
            if link.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            link.close()
        time.sleep(0.02)
    raise AssertionError(f"port {port} doesn't answer: {log.read_text()[-2000:]}")
