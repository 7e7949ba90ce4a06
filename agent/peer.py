"""Who is at the other end of a Unix socket: the kernel's word for it, taken when the connection was made."""

import os
import select
import socket
import struct
import sys

from wattribute.agent.requests import Peer

_SO_PEERPIDFD = 77  # Linux 6.5, asm-generic/socket.h; Python has no name for it
_LOCAL_PEERCRED, _LOCAL_PEERPID = 1, 2  # sys/un.h of macOS, level SOL_LOCAL = 0


def peer_of(link: socket.socket) -> Peer:
    """Process, user and group that connected, by unix(7)'s SO_PEERCRED (macOS: LOCAL_PEERCRED and LOCAL_PEERPID)."""
    if sys.platform == "darwin":
        _, uid, _, gid = struct.unpack("IIhxxI", link.getsockopt(0, _LOCAL_PEERCRED, 76)[:16])
        return Peer(pid=link.getsockopt(0, _LOCAL_PEERPID), uid=uid, gid=gid)
    pid, uid, gid = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid=pid, uid=uid & 0xFFFFFFFF, gid=gid & 0xFFFFFFFF)


def is_alive(link: socket.socket) -> bool:
    """False where the kernel says that the peer has ended, so that its pid may be another's by now.

    A pidfd is bound to the process that connected, not to its number. Kernels before 6.5 can't tell: True.
    """
    if sys.platform != "linux":
        return True
    try:
        pidfd = link.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return not poll.poll(0)
    finally:
        os.close(pidfd)


def has_left(link: socket.socket) -> bool:
    """Whether nobody is left to take an answer; whoever merely has nothing more to say is still there."""
    poll = select.poll()
    poll.register(link, 0)  # POLLHUP is always told
    return any(events & select.POLLHUP for _, events in poll.poll(0))


__all__ = ["has_left", "is_alive", "peer_of"]
