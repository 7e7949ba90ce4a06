"""A local HTTP server that answers as Electricity Maps, WattTime, GB's carbonintensity.org.uk and Prometheus do.

What it says is in `maps`, `watts`, `british` and `prom`; `trouble` may answer in its place, or not at all. It keeps
what it was asked in `asked`, with the headers.
"""

import json
import threading
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

KEY = "em-key-0123456789"
USER, PASSWORD = "ada", "pass-word-987"
TOKEN = "watt-token-555"
HALF_HOUR_S, HOUR_S = 1800, 3600


class Asked(NamedTuple):
    path: str
    query: dict[str, str]
    headers: dict[str, str]


def iso(unix_s: float, form: str = "%Y-%m-%dT%H:%M:%S.000Z") -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):{form}}"


def seconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp())


class GridServer(ThreadingHTTPServer):
    """Each provider under the paths of the real one."""

    daemon_threads = True

    def __init__(self) -> None:
        self.zone, self.factor_type = "DE", "lifecycle"
        self.maps: dict[int, tuple[float | None, bool]] = {}  # hour -> (g/kWh, estimated)
        self.without_range = False  # a plan that has no past-range
        self.watts: dict[int, float] = {}  # five minutes -> lb/MWh
        self.units = "lbs_co2_per_mwh"
        self.british: dict[int, tuple[float | None, float | None]] = {}  # half hour -> (forecast, actual)
        self.prom: dict[str, dict[int, str]] = {}  # query -> second -> value
        self.prom_series = 1
        self.trouble: Callable[[Answering, str], bool] | None = None
        self.token = TOKEN
        self.asked: list[Asked] = []
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), Answering)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that waits no longer hangs up."""

    def __enter__(self) -> "GridServer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def maps_point(self, hour_s: int) -> dict[str, Any]:
        g_per_kwh, estimated = self.maps[hour_s]
        return {
            "zone": self.zone,
            "carbonIntensity": g_per_kwh,
            "datetime": iso(hour_s),
            "updatedAt": iso(hour_s + 2400),
            "createdAt": iso(hour_s - 250_000),
            "emissionFactorType": self.factor_type,
            "isEstimated": estimated,
            "estimationMethod": "TIME_SLICER_AVERAGE" if estimated else None,
            "temporalGranularity": "hourly",
        }

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        if path.startswith("/v3/carbon-intensity/"):
            return self._electricity_maps(parts[2], query, headers)
        if path == "/login":
            basic = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            good = headers.get("authorization") == f"Basic {basic}"
            return (200, {"token": self.token}) if good else (401, {"error": "wrong password"})
        if path == "/v3/historical":
            return self._watttime(query, headers)
        if parts[0] == "intensity":
            return 200, {"data": self._half_hours(parts[1], parts[2])}
        if parts[:2] == ["regional", "intensity"]:
            return 200, {"data": self._region(parts)}
        if path == "/api/v1/query_range":
            return self._prometheus(query)
        return 404, {"error": "no such path"}

    def _electricity_maps(self, what: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        if headers.get("auth-token") != KEY:
            return 401, {"status": "error", "message": f"Invalid auth-token {headers.get('auth-token')}"}
        hours = sorted(self.maps)
        if what == "latest":
            return 200, self.maps_point(hours[-1])
        if what == "past-range":
            if self.without_range:
                return 403, {"error": "not in your plan"}
            start, end = seconds(query["start"]), seconds(query["end"])
            found = [self.maps_point(hour) for hour in hours if start <= hour < end]
            return 200, {"zone": self.zone, "temporalGranularity": "hourly", "data": found}
        found = [self.maps_point(hour) for hour in hours[-24:]]
        return 200, {"zone": self.zone, "temporalGranularity": "hourly", "history": found}

    def _watttime(self, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        if headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"error": "token expired"}
        start, end = seconds(query["start"]), seconds(query["end"])
        data = [
            {"point_time": iso(at, "%Y-%m-%dT%H:%M:%S+00:00"), "value": value}
            for at, value in sorted(self.watts.items())
            if start <= at <= end
        ]
        meta = {
            "data_point_period_seconds": 300,
            "region": "CAISO_NORTH",
            "warnings": [],
            "signal_type": query["signal_type"],
            "model": {"date": "2023-03-01"},
            "units": self.units,
        }
        return 200, {"data": data, "meta": meta}

    def _half_hours(self, start: str, end: str, actual: bool = True) -> list[dict[str, Any]]:
        return [
            {
                "from": iso(at, "%Y-%m-%dT%H:%MZ"),
                "to": iso(at + HALF_HOUR_S, "%Y-%m-%dT%H:%MZ"),
                "intensity": {"forecast": known[0], "index": "moderate", **({"actual": known[1]} if actual else {})},
            }
            for at, known in sorted(self.british.items())
            if seconds(start) <= at < seconds(end)
        ]

    def _region(self, parts: list[str]) -> dict[str, Any]:
        area: dict[str, Any] = {"regionid": 13, "shortname": "London", "dnoregion": "UKPN London"}
        if parts[4] == "regionid":
            area["regionid"] = int(parts[5])
        else:
            area["postcode"] = parts[5]
        return {**area, "data": self._half_hours(parts[2], parts[3], actual=False)}

    def _prometheus(self, query: dict[str, str]) -> tuple[int, Any]:
        samples = self.prom.get(query["query"], {})
        start, end, step = (int(query[key]) for key in ("start", "end", "step"))
        values = [[at, samples[at]] for at in range(start, end + 1, step) if at in samples]
        series = [{"metric": {"zone": str(n)}, "values": values} for n in range(self.prom_series)] if values else []
        return 200, {"status": "success", "data": {"resultType": "matrix", "result": series}}


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, GridServer)
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(Asked(parts.path, query, headers))
        if self.server.trouble is not None and self.server.trouble(self, parts.path):
            return
        status, document = self.server.answer(parts.path, query, headers)
        self.reply(status, json.dumps(document).encode())

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def says(status: int, body: bytes = b"", **headers: str) -> Callable[[Answering, str], bool]:
    """Trouble: this answer to everything."""

    def trouble(request: Answering, path: str) -> bool:
        request.reply(status, body, **headers)
        return True

    return trouble


def hangs(request: Answering, path: str) -> bool:
    """Trouble: no answer at all, until the server is closed."""
    assert isinstance(request.server, GridServer)
    request.server.released.wait(10)
    return True


def drips(request: Answering, path: str) -> bool:
    """Trouble: a byte now and then."""
    assert isinstance(request.server, GridServer)
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    while not request.server.released.wait(0.05):
        request.wfile.write(b" ")
        request.wfile.flush()
    return True
