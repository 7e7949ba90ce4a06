"""What Docker and Podman say of their running containers: GET /containers/json over their Unix socket.

Source: Docker Engine API (ContainerList), which Podman's service speaks as well.
"""

from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

TIMEOUT_S = 2.0
ANSWER_BYTES = 64 * 2**20  # thousands of containers at 2 to 5 KiB each


class Told(NamedTuple):
    """A container's name ("": none) and its labels."""

    name: str
    labels: Mapping[str, str]


class NoEngine(Exception):
    """Nobody listens there, or not to us; it will not be otherwise in a second."""


def containers(socket_path: str) -> dict[str, Told]:
    """Container id -> what the engine calls it. Raises NoEngine; OSError or ValueError where the answer is none."""
    import http.client  # with ssl and email: 20 ms that a node without containers doesn't pay
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(TIMEOUT_S)
        try:
            link.connect(socket_path)
        except (FileNotFoundError, ConnectionRefusedError, PermissionError) as error:
            raise NoEngine(f"{socket_path}: {error.strerror}") from error
        with closing(http.client.HTTPConnection("localhost")) as connection:
            connection.sock = link
            try:
                connection.request("GET", "/containers/json", headers={"Connection": "close"})
                response = connection.getresponse()
                answer = response.read(ANSWER_BYTES + 1)
            except http.client.HTTPException as error:
                raise ValueError(f"{socket_path}: {error!r}") from error
            if response.status != 200 or len(answer) > ANSWER_BYTES:
                raise ValueError(f"{socket_path} answered {response.status} with {len(answer)} bytes")
    return _parse(answer)


def _parse(answer: bytes) -> dict[str, Told]:
    import json

    listed = json.loads(answer)
    if not isinstance(listed, list):
        raise ValueError("not a list of containers")
    return {
        one["Id"]: Told(_name(one.get("Names")), _labels(one.get("Labels")))
        for one in listed
        if isinstance(one, dict) and isinstance(one.get("Id"), str)
    }


def _name(names: object) -> str:
    """The container's own name among those that others link to it by (`/other/alias`)."""
    own = [name.removeprefix("/") for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return next((name for name in own if name and "/" not in name), "")


def _labels(labels: object) -> dict[str, str]:
    if not isinstance(labels, dict):
        return {}
    return {key: value for key, value in labels.items() if isinstance(key, str) and isinstance(value, str)}
