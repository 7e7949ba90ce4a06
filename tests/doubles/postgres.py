"""Debian's PostgreSQL in a directory of its own, on a free port of the loopback; killed and started at will."""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

START_S = 30.0
MEMORY = "/dev/shm"
ROOM_BYTES = 4 << 30  # each database takes about 8 MB
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


def programs() -> Path:
    """Where initdb and postgres are; Debian keeps them off the path. Without them the test is skipped."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if (initdb := shutil.which("initdb")) is not None:
        return Path(initdb).resolve().parent
    if os.environ.get("WATTRIBUTE_TEST_REQUIRE"):
        pytest.fail("missing: postgresql, and WATTRIBUTE_TEST_REQUIRE is set")
    pytest.skip("missing: postgresql")


class Postgres:
    """One server. It won't run as root: there it runs as postgres, or nobody."""

    def __init__(self, folder: Path, settings: Mapping[str, str] = FAST) -> None:
        self._bin = programs()
        self._data = folder / "data"
        self._settings = settings
        self._as: dict[str, Any] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        if os.geteuid() == 0:
            user = _unprivileged()
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._run("initdb", "-D", str(self._data), "-U", "wattribute", "-A", "trust", "-N", "--locale=C.UTF-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._folder = folder

    def start(self) -> None:
        """Start it, and wait until it answers."""
        until_s = time.monotonic() + START_S
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._folder),
            "shared_buffers": "16MB",
            "max_connections": "50",
            **self._settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            while time.monotonic() < until_s:
                if self._server is None or self._server.poll() is not None:
                    self._server = subprocess.Popen(
                        [self._bin / "postgres", "-D", self._data, *options],
                        stdout=log,
                        stderr=log,
                        cwd=self._folder,
                        **self._as,
                    )
                if self._answers():
                    return
                time.sleep(0.05)
        raise AssertionError((self._folder / "log").read_text(errors="replace")[-2000:])

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it: SIGQUIT is `pg_ctl stop -m immediate`, SIGINT is fast."""
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait(START_S)
            self._server = None

    def kill(self) -> None:
        """SIGKILL to the server and all its processes, as if the machine had gone."""
        assert self._server is not None
        pid = self._server.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for process in [pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._server.wait(START_S)
        self._server = None

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """The address of a database, or of the same behind another port."""
        return f"postgresql://wattribute:geheim@127.0.0.1:{port or self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database; its name."""
        name = f"test_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} STRATEGY file_copy")
        return name

    def sql(self, text: str, database: str = "postgres") -> str:
        """What psql answers."""
        return self._run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text, self.url(database))

    def _answers(self) -> bool:
        command = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *words: str) -> str:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [str(self._bin / program), *words], capture_output=True, text=True, cwd="/", check=False, **self._as
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError("no unprivileged user to run PostgreSQL as")


def _quick() -> str | None:
    """Memory in place of a disk, where there is enough: a new database is there in 20 ms, not in 200."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(MEMORY).free > ROOM_BYTES and os.access(MEMORY, os.W_OK):
            return MEMORY
    return None


@contextlib.contextmanager
def running(settings: Mapping[str, str] = FAST) -> Iterator[Postgres]:
    """A server for a while. Not below pytest's own folders: those are closed to other users."""
    with tempfile.TemporaryDirectory(prefix="wattribute-pg-", dir=_quick()) as folder:
        server = Postgres(Path(folder), settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()
