"""A headless Chromium with a profile of its own, driven over its DevTools protocol."""

import base64
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.tools import require
from websockets.sync.client import ClientConnection, connect

PATIENCE_S = 20.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
)


@contextmanager
def browsing(profile: Path) -> Iterator["Browser"]:
    """A browser with one tab, until the end of the block."""
    command = [require("chromium"), *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    with ExitStack() as stack:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        told = profile / "DevToolsActivePort"
        until_s = time.monotonic() + PATIENCE_S
        while not (told.exists() and told.read_text().strip()):
            assert process.poll() is None, "Chromium ended"
            assert time.monotonic() < until_s, "Chromium doesn't listen"
            time.sleep(0.02)
        with urllib.request.urlopen(f"http://127.0.0.1:{told.read_text().split()[0]}/json/list", timeout=5) as answer:
            tab = next(target for target in json.load(answer) if target["type"] == "page")
        yield Browser(stack.enter_context(connect(tab["webSocketDebuggerUrl"], max_size=None)))


class Browser:
    """One tab. `events` are what it told since it was opened: (method, parameters)."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._calls = 0
        self.events: list[tuple[str, dict[str, Any]]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a method of the protocol answers."""
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE_S))
            if message.get("id") == self._calls:
                assert "error" not in message, (method, message)
                found: dict[str, Any] = message["result"]
                return found
            if "method" in message:
                self.events.append((message["method"], message["params"]))

    def show(self, url: str, *, width: int = 1280, height: int = 900, scale: float = 1, dark: bool = False) -> None:
        """Open a page in a window of this size (CSS pixels)."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def eval(self, script: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, (script, done)
        return done["result"].get("value")

    def until(self, script: str) -> Any:
        """The value of an expression as soon as it is true."""
        until_s = time.monotonic() + PATIENCE_S
        while not (value := self.eval(script)):
            assert time.monotonic() < until_s, script
            time.sleep(0.02)
        return value

    def picture(self, *, left: float = 0, top: float = 0, width: float, height: float) -> bytes:
        """A WebP of a part of the page, in CSS pixels."""
        clip = {"x": left, "y": top, "width": width, "height": height, "scale": 1}
        shot = {"format": "webp", "quality": 80, "clip": clip, "captureBeyondViewport": True}
        done = self.call("Page.captureScreenshot", **shot)
        return base64.b64decode(done["data"])

    def requested(self) -> list[str]:
        """The addresses of everything that was asked for."""
        return [told["request"]["url"] for name, told in self.events if name == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Exceptions, errors on the console, and entries of the log: violated policies, failed requests."""
        found = [str(told["exceptionDetails"]) for name, told in self.events if name == "Runtime.exceptionThrown"]
        found += [str(told) for name, told in self.events if name == "Runtime.consoleAPICalled"]
        return found + [str(told["entry"]) for name, told in self.events if name == "Log.entryAdded"]
