"""A BMC's Redfish service over a real socket: resources as JSON, a login, and what goes wrong.

`resources` are the documents by path; `trouble` may answer in their place, or not at all. `asked` are path and login.
"""

import base64
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHASSIS = "/redfish/v1/Chassis"
BOX = f"{CHASSIS}/1"


def number_of(value: float | str | None) -> str:
    return "null" if value is None else str(value)


class Redfish(ThreadingHTTPServer):
    """One chassis with a power of 153 W, on a port of the loopback; with a certificate by TLS."""

    daemon_threads = True

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        self.resources: dict[str, str] = {
            CHASSIS: json.dumps({"Members": [{"@odata.id": BOX}]}),
            BOX: json.dumps({page: {"@odata.id": f"{BOX}/{page}"} for page in ("Power", "EnvironmentMetrics")}),
        }
        self.login = ""  # user:password that is asked for
        self.trouble: Callable[[Answering], None] | None = None
        self.asked: list[tuple[str, str]] = []
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), Answering)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{self.server_address[1]}"
        self.draw(153)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def draw(self, power_w: float | str | None) -> None:
        """What `Power` tells."""
        told = f'{{"PowerControl": [{{"PowerConsumedWatts": {number_of(power_w)}}}]}}'
        self.resources[f"{BOX}/Power"] = told

    def count(self, energy_kwh: str | None, power_w: float | None = None) -> None:
        """What `EnvironmentMetrics` tells."""
        kwh, watts = number_of(energy_kwh), number_of(power_w)
        told = f'{{"EnergykWh": {{"Reading": {kwh}}}, "PowerWatts": {{"Reading": {watts}}}}}'
        self.resources[f"{BOX}/EnvironmentMetrics"] = told

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that waits no longer hangs up."""

    def __enter__(self) -> "Redfish":
        return self

    def __exit__(self, *exc: object) -> None:
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Redfish)
        login = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        server.asked.append((self.path, login))
        if server.trouble is not None:
            server.trouble(self)
        elif server.login and login != server.login:
            self.reply(401, "{}")
        elif self.path in server.resources:
            self.reply(200, server.resources[self.path])
        else:
            self.reply(404, "{}")

    def reply(self, status: int, text: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        body = text.encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
