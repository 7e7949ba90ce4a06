"""An agent started as its systemd unit says, as far as that goes without systemd, and what it tells its manager."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.doubles.unit import Unit
from tests.e2e.running import free_port

ROOT = Path(__file__).parents[2]
UNIT = Unit([ROOT / "deploy/systemd/wattribute.service"])
PATIENCE_S = 20.0


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own isn't."""
    with tempfile.TemporaryDirectory(prefix="wattribute-unit-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def for_everybody(folder: Path) -> list[str]:
    """What stands before a command so that this Python can be read by all users there, also where it is in root's home.

    A mount namespace of the command's own, where an empty directory hides what is closed but for Python itself.
    """
    python = Path(sys.base_prefix).resolve()
    closed = next((place for place in reversed(python.parents) if not place.stat().st_mode & 0o005), None)
    if closed is None:
        return []
    kept = folder / "python"
    kept.mkdir(exist_ok=True)
    script = (
        f"mount --bind {python} {kept} && mount -t tmpfs -o mode=755 none {closed} && mkdir -p {python} && "
        f'mount --bind {kept} {python} && exec "$@"'
    )
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("missing: CAP_SYS_ADMIN")
    return command


class UnitAgent:
    """One agent below `folder`; `heard` are the lines of its notifications so far."""

    def __init__(self, folder: Path, sys_tree: Path, *, unit: Unit | None = None) -> None:
        self.folder = folder
        self.state_dir, self.socket = folder / "state", folder / "run/agent.sock"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = folder / "agent.log"
        self.heard: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._sys = sys_tree
        self._unit = unit
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind("\0" + f"wattribute-unit-{os.getpid()}-{folder.name}")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("WATTRIBUTE", "XDG_RUNTIME"))}
        self.environment = {
            **clean,
            **(unit.environment if unit else {}),
            "WATTRIBUTE_CONFIG": str(folder / "wattribute.toml"),
            "NOTIFY_SOCKET": "@" + f"wattribute-unit-{os.getpid()}-{folder.name}",
            "WATCHDOG_USEC": "30000000",
        }
        text = '[agent]\ninterval_s = 0.1\n[collectors]\nnvml = "off"\n[jobs]\nslurm = "off"\ncontainers = "off"\n'
        (folder / "wattribute.toml").write_text(text)

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        own = ["--listen", self.url.removeprefix("http://"), "--socket", str(self.socket), "--sys", str(self._sys)]
        own += ["--state-dir", str(self.state_dir), *arguments]
        if self._unit is None:
            command = [sys.executable, "-m", "wattribute", "agent", *own]
        else:
            command = for_everybody(self.folder) + self._unit.command(*own)
        self.heard = []
        with self.log.open("ab") as log:
            env = {**self.environment, **(environment or {})}
            null = subprocess.DEVNULL  # as systemd has it
            self.process = subprocess.Popen(command, env=env, stdin=null, stderr=log, stdout=log, cwd=ROOT)

    def wait_for(self, line: str, *, more: int = 1) -> None:
        """Until this line has been heard `more` times from now on."""
        for _ in range(more):
            while line not in self.listen(PATIENCE_S):
                pass

    def listen(self, patience_s: float) -> list[str]:
        """The lines of the next notification. Raises AssertionError with the log where none comes."""
        self._manager.settimeout(patience_s)
        try:
            lines = self._manager.recv(4096).decode().split("\n")
        except TimeoutError:
            raise AssertionError(f"nothing was told: {self.log.read_text()}") from None
        self.heard += lines
        return lines

    def is_silent(self, for_s: float) -> bool:
        """Whether no notification comes for so long, once those on their way are heard."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            self._manager.settimeout(for_s)
            try:
                self._manager.recv(4096)
            except TimeoutError:
                return True
        return False

    def threads(self) -> list[dict[str, str]]:
        """What the kernel says of each thread."""
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [dict(re.findall(r"^(\w+):\t(.*?)\s*$", (t / "status").read_text(), re.MULTILINE)) for t in tasks]

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self._manager.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
