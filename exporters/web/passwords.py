"""Checks passwords against bcrypt hashes in a thread of its own: one check takes 50 to 250 ms of CPU time.

What was found is remembered under a keyed hash of user, hash and password, so that a scraper costs one check per start
of the agent, and nothing that a client sends can stand for anything else (CVE-2022-46146).
"""

import contextlib
import hashlib
import hmac
import os
import queue
import selectors
import socket
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping

import bcrypt

WAITING_MAX = 16
WAITING_PER_PEER = 4
REMEMBERED = 256
BCRYPT_BYTES = 72  # what bcrypt looks at; htpasswd and Go cut a longer password there too
_NICE = 10
_SHUTDOWN_S = 1.0

Then = Callable[[bool], None]


class Passwords:
    """A bounded queue of checks. All methods are the loop's; what waits is told from the loop as well."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._secret = os.urandom(32)
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._bad: OrderedDict[bytes, None] = OrderedDict()
        self._waiting: dict[bytes, list[tuple[str, Then]]] = {}
        self._queue: queue.SimpleQueue[tuple[bytes, bytes, bytes, bool] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[bytes, bool]] = queue.SimpleQueue()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._thread: threading.Thread | None = None
        selector.register(self._woken, selectors.EVENT_READ, self._tell)

    def check(self, user: bytes, password: bytes, users: Mapping[bytes, bytes], peer: str, then: Then) -> bool | None:
        """Whether the password is the user's; None where `then` will be told, once.

        An unknown user takes as long as the dearest of those who are known. Raises queue.Full where too many wait.
        """
        known = user in users
        hashed = users[user] if known else _unknown(users)
        key = self._key(user, hashed, password)
        for memory, good in ((self._good, True), (self._bad, False)):
            if key in memory:
                memory.move_to_end(key)
                return good
        peers = Counter(other for waiting in self._waiting.values() for other, _ in waiting)
        if peers.total() >= WAITING_MAX or peers[peer] >= WAITING_PER_PEER:
            raise queue.Full
        if key in self._waiting:
            self._waiting[key].append((peer, then))
            return None
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="wattribute-logins", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # as many threads as there may be
                raise queue.Full from error
            self._thread = thread
        self._waiting[key] = [(peer, then)]
        self._queue.put((key, password[:BCRYPT_BYTES], hashed, known))
        return None

    def close(self) -> None:
        """Forget everything; who waits is never told."""
        if self._wake.fileno() < 0:
            return
        self._waiting.clear()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(_SHUTDOWN_S)
        self._selector.unregister(self._woken)
        self._woken.close()
        self._wake.close()

    def _key(self, *parts: bytes) -> bytes:
        told = b"".join(len(part).to_bytes(8) + part for part in parts)
        return hmac.digest(self._secret, told, hashlib.sha256)

    def _work(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # on Linux a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while (asked := self._queue.get()) is not None:
            key, password, hashed, known = asked
            try:
                good = bcrypt.checkpw(password, hashed) and known
            except ValueError:  # a password with a zero byte
                good = False
            self._done.put((key, good))
            with contextlib.suppress(OSError):  # full: it is awake; closed: nobody asks any more
                self._wake.send(b"\0")

    def _tell(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        with contextlib.suppress(queue.Empty):
            while True:
                key, good = self._done.get_nowait()
                memory = self._good if good else self._bad
                memory[key] = None
                if len(memory) > REMEMBERED:
                    memory.popitem(last=False)
                for _, then in self._waiting.pop(key, ()):
                    then(good)


def _unknown(users: Mapping[bytes, bytes]) -> bytes:
    """The hash of nobody's password, that is as dear to check as the dearest of the users'."""
    cost = max((hashed[4:6] for hashed in users.values()), default=b"10")
    return b"$2b$" + cost + b"$" + b"." * 53
