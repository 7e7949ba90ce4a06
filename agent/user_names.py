"""Names of users by uid. The system may ask a directory server for them (LDAP, SSSD), which may not answer for long."""

import threading
import time
from collections.abc import Callable

FRESH_S = 300.0
"""A name that is older is asked for again, and counts until there is an answer."""
PATIENCE_S = 0.02
OVERDUE_S = 0.1
MOST_ASKED, MOST_KNOWN = 16, 10_000
"""Whoever has many uids (a range of subordinate ones) costs no more threads and memory than these."""


def user_name(uid: int) -> str:
    """The name of a user, or the number where none is known; as long as the system takes."""
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError, OverflowError):
        return str(uid)


class UserNames:
    """What `user_name` says, kept, and asked for in threads of their own: one for each user who isn't known."""

    def __init__(self, look_up: Callable[[int], str] = user_name, clock: Callable[[], float] = time.monotonic) -> None:
        self._look_up = look_up
        self._clock = clock
        self._known: dict[int, tuple[str, float]] = {}
        self._asked: dict[int, tuple[threading.Event, float]] = {}  # with the time since when
        self._lock = threading.Lock()

    def __call__(self, uid: int) -> str:
        """The name, or the number where none is known or the system takes longer than some milliseconds."""
        asked = self.ask(uid)
        if asked is not None:
            asked.wait(PATIENCE_S)
        known = self._known.get(uid)
        return str(uid) if known is None else known[0]

    def ask(self, uid: int) -> threading.Event | None:
        """What is set once the name is known; None where it is, or the system is known not to answer."""
        now_s = self._clock()
        with self._lock:
            known, asked = self._known.get(uid), self._asked.get(uid)
            stale = known is None or now_s - known[1] > FRESH_S
            if asked is None and stale and len(self._asked) < MOST_ASKED:
                asked = self._asked[uid] = threading.Event(), now_s
                threading.Thread(target=self.resolve, args=(uid,), name="wattribute-user", daemon=True).start()
        return asked[0] if known is None and asked is not None and now_s - asked[1] <= OVERDUE_S else None

    def resolve(self, uid: int) -> str:
        """The name, for a thread that may wait for it."""
        known = self._known.get(uid)
        if known is not None and self._clock() - known[1] <= FRESH_S:
            return known[0]
        try:
            name = self._look_up(uid)
            with self._lock:
                if len(self._known) >= MOST_KNOWN:
                    self._known.clear()
                self._known[uid] = name, self._clock()
            return name
        finally:
            with self._lock:
                asked = self._asked.pop(uid, None)
            if asked is not None:
                asked[0].set()


__all__ = ["UserNames", "user_name"]
