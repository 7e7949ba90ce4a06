"""Asks the agent over its Unix socket: one JSON object per line, both ways. Blocking, with a deadline for each call.

Light on purpose (standard library only): it is what `job()` loads inside somebody's training script.
"""

import errno
import functools
import itertools
import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from wattribute.agent.core.errors import WattributeError
from wattribute.agent.identity import default_socket_paths

CONNECT_S = 0.05
CALL_S = 0.2
CONFIG_FILE = "/etc/wattribute/wattribute.toml"
LINE_BYTES = 64 << 10  # as agent/wire.py has it, which a training script would pay for
_REPLY_BYTES = 64 << 20


class AgentUnreachable(WattributeError):
    """Nobody answered in time, or the connection broke; what was asked may or may not have been done."""


class AgentRefused(WattributeError):
    """The agent answered no. `code` is the protocol's: refused, bad-request, unknown-op, too-large, unavailable."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


@functools.lru_cache(maxsize=4)
def _socket_in(path: str, _mtime_ns: int, _size: int) -> str | None:
    import tomllib

    try:
        with open(path, "rb") as file:
            value = tomllib.load(file).get("agent", {}).get("socket")
    except (OSError, ValueError, AttributeError):  # the agent itself says what is wrong with its file
        return None
    return value if isinstance(value, str) and value else None


def _configured_in_file(environment: Mapping[str, str]) -> str | None:
    path = environment.get("WATTRIBUTE_CONFIG", "") or CONFIG_FILE
    try:
        state = os.stat(path)  # noqa: PTH116 - pathlib would be this module's only use of it
    except OSError:
        return None
    return _socket_in(path, state.st_mtime_ns, state.st_size)


def configured_path(environment: Mapping[str, str]) -> str | None:
    """The socket that somebody named, in the environment or the file; None where only the defaults are left."""
    return environment.get("WATTRIBUTE_AGENT__SOCKET", "") or _configured_in_file(environment)


def socket_paths(environment: Mapping[str, str]) -> list[str]:
    """Where to look for an agent, in order; a path somebody named in the environment is the only one."""
    named = environment.get("WATTRIBUTE_AGENT__SOCKET", "")
    if named:
        return [named]
    in_file = _configured_in_file(environment)
    return ([in_file] if in_file else []) + default_socket_paths(environment)


def _connected(path: str, timeout_s: float) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout_s)
        link.connect(path)
    except BaseException:
        link.close()
        raise
    return link


class Client:
    """One agent's socket. Every call is a connection of its own, so a Client may be kept for days and shared."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._ids = itertools.count(1)
        self._spare: socket.socket | None = None

    @classmethod
    def find(cls, environment: Mapping[str, str]) -> "Client | None":
        """The first agent that accepts a connection, or None. Takes 50 ms at the most. Never raises."""
        if not hasattr(socket, "AF_UNIX"):  # Python on Windows
            return None
        deadline = time.monotonic() + CONNECT_S
        for path in socket_paths(environment):
            try:
                link = _connected(path, max(deadline - time.monotonic(), 0.001))
            except (OSError, ValueError):  # ValueError: a NUL in the path
                continue
            client = cls(path)
            client._spare = link
            return client
        return None

    def close(self) -> None:
        """Drops the connection that `find` made, if no call has used it."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.close()

    def call(self, op: str, timeout_s: float = CALL_S, **fields: object) -> dict[str, Any]:
        """Sends one request and returns the reply, less `id` and `ok`.

        Raises AgentUnreachable after `timeout_s` seconds at the latest, AgentRefused where the agent says no, or would
        end the connection unread: a line that is too long must not look like an agent that hangs.
        """
        deadline = time.monotonic() + timeout_s
        request_id = next(self._ids)
        line = json.dumps({"op": op, "id": request_id, **fields}).encode() + b"\n"
        if len(line) > LINE_BYTES:
            self.close()
            raise AgentRefused("too-large", f"{op} has {len(line):,} bytes, at most {LINE_BYTES:,} are taken")
        link, self._spare = self._spare, None
        try:
            if link is None:
                link = _connected(self.path, min(CONNECT_S, timeout_s))
            with link:
                reply = self._exchange(link, line, deadline)
        except TimeoutError as error:
            raise AgentUnreachable(
                f"the agent at {self.path} did not answer within {timeout_s * 1000:.0f} ms"
            ) from error
        except OSError as error:
            # A full backlog is EAGAIN on a Unix socket: the agent is there, but busy or stopped.
            why = "is too busy to answer" if error.errno == errno.EAGAIN else f"can't be asked: {error.strerror}"
            raise AgentUnreachable(f"the agent at {self.path} {why}") from error
        except ValueError as error:
            raise AgentUnreachable(f"the agent at {self.path} answered with something that isn't JSON") from error
        if not isinstance(reply, dict) or reply.pop("id", None) not in (request_id, None):
            raise AgentUnreachable(f"the agent at {self.path} answered something else than what it was asked")
        if reply.pop("ok", False) is not True:
            raise AgentRefused(str(reply.get("code", "unavailable")), str(reply.get("error", "no reason given")))
        return reply

    @staticmethod
    def _exchange(link: socket.socket, line: bytes, deadline: float) -> Any:
        link.settimeout(max(deadline - time.monotonic(), 0.001))
        link.sendall(line)
        received = bytearray()
        while not received.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            link.settimeout(left_s)
            part = link.recv(1 << 16)
            if not part:
                raise ConnectionResetError(errno.ECONNRESET, "it closed the connection")
            received += part
            if len(received) > _REPLY_BYTES:
                raise ValueError("reply too long")
        return json.loads(received)


__all__ = ["AgentRefused", "AgentUnreachable", "Client", "configured_path", "socket_paths"]
