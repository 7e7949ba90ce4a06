"""Listening TCP sockets on every address of a host, and what to do where one can't be had."""

import errno
import os
import socket
from typing import TypeAlias

from wattribute.agent.core.errors import WattributeError

Address: TypeAlias = tuple[str | bytes | int, ...]

BACKLOG = 128


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on every address of `host`: a name, an address, or an IPv6 literal in brackets or without.

    Port 0 takes a free one, the same on all. Raises WattributeError with the fix.
    """
    name = host.removeprefix("[").removesuffix("]")
    shown = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    try:
        found = socket.getaddrinfo(name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise WattributeError(f"can't listen on {shown}: {error}. Fix: --listen 127.0.0.1:{port}") from error
    addresses: list[tuple[int, Address]] = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    listeners: list[socket.socket] = []
    failure: OSError | None = None
    for family, address in addresses:
        if listeners:  # port 0: the other addresses take the port that the first was given
            address = (address[0], listeners[0].getsockname()[1], *address[2:])
        try:
            listeners.append(_listener(family, address, alone=len(addresses) == 1))
        except OSError as error:
            failure = error
            # `localhost` may have an IPv6 address on a machine without IPv6: one that can be had is enough.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
    if failure is not None and (not listeners or failure.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)):
        for listener in listeners:
            listener.close()
        raise WattributeError(f"can't listen on {shown}: {_cause(failure, port)}") from failure
    return listeners


def _listener(family: int, address: Address, *, alone: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two agents share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not alone))
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _cause(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is in use. Fix: stop what listens there (`ss -ltnp 'sport = :{port}'` names it), "
            f"or take another: --listen 127.0.0.1:{port + 1 if port < 65535 else port - 1}"
        )
    if error.errno == errno.EACCES:
        return f"ports below 1024 are for root. Fix: --listen 127.0.0.1:{19917 if port != 19917 else port + 1}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no such address. Fix: --listen 127.0.0.1:{port}"
    return f"{error.strerror}. Fix: --listen 127.0.0.1:{port}"
