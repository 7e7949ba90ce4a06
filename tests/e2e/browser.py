"""A headless Chromium with a profile of its own, driven over its DevTools protocol."""

import base64
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tools import require
from websockets.sync.client import connect

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


class Browser:
    """One tab. `events` are what it told since it was opened: (method, parameters)."""

    def __init__(self, profile: Path) -> None:
        command = [
            require("chromium"),
            *FLAGS,
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = self._port(profile / "DevToolsActivePort")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE_S) as answer:
                tab = next(target for target in json.load(answer) if target["type"] == "page")
            self._socket = connect(tab["webSocketDebuggerUrl"], max_size=None)
        except BaseException:
            self._end()
            raise
        self._calls = 0
        self.events: list[tuple[str, dict[str, Any]]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._socket.close()
        self._end()

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
        return self.wait(lambda: self.eval(script), script)

    def wait(self, done: Callable[[], Any], what: str) -> Any:
        """What `done` gives as soon as that is true."""
        until_s = time.monotonic() + PATIENCE_S
        while not (value := done()):
            assert time.monotonic() < until_s, what
            time.sleep(0.02)
        return value

    def picture(self, *, whole: bool = False, width: int, height: int) -> bytes:
        """A PNG of the window, or of the whole page."""
        height = self.eval("document.documentElement.scrollHeight") if whole else height
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        done = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(done["data"])

    def requested(self) -> list[str]:
        """The addresses of everything that was asked for."""
        return [told["request"]["url"] for name, told in self.events if name == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Exceptions, errors on the console, and entries of the log: violated policies, failed requests."""
        found = [str(told["exceptionDetails"]) for name, told in self.events if name == "Runtime.exceptionThrown"]
        found += [str(told) for name, told in self.events if name == "Runtime.consoleAPICalled"]
        return found + [str(told["entry"]) for name, told in self.events if name == "Log.entryAdded"]

    def _port(self, file: Path) -> int:
        def read() -> int:
            assert self._process.poll() is None, "Chromium ended"
            return int(file.read_text().split()[0]) if file.exists() and file.read_text().strip() else 0

        return int(self.wait(read, "Chromium listens"))

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
