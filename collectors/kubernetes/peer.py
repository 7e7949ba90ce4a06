"""Whose process is at the other end of a connection within this machine, by the kernel's table of sockets.

Source: proc_net_tcp.rst: addresses are in the host's byte order, a word of 32 bits at a time; the eighth field is the
uid. A socket belongs to whoever accepted it, which a finished TLS handshake has seen to.
"""

import ipaddress
import socket
import sys
from contextlib import suppress


def is_loopback(address: str) -> bool:
    """Whether this is an address of the machine itself, or the name that stands for one."""
    with suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return address == "localhost"


def owner_of_peer(connected: socket.socket, proc: str) -> int | None:
    """The uid that has accepted a loopback connection of ours; None where the kernel doesn't show it."""
    theirs, ours = connected.getpeername(), connected.getsockname()
    rows = [(_shown(theirs), _shown(ours), "tcp6" if ":" in theirs[0] else "tcp")]
    if ":" not in theirs[0]:  # what listens on [::] takes IPv4 as well
        rows.append((_shown(theirs, mapped=True), _shown(ours, mapped=True), "tcp6"))
    for local, remote, table in rows:
        with suppress(OSError), open(f"{proc}/net/{table}", encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if fields[1:3] == [local, remote]:
                    return int(fields[7])
    return None


def _shown(address: tuple[str, int], *, mapped: bool = False) -> str:
    host, port = address[:2]
    packed = ipaddress.ip_address(f"::ffff:{host}" if mapped else host).packed
    words = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}"
