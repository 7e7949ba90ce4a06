"""Responses that take long, one after the other: a piece of one in each turn of the loop, however many are asked for.

Were all of them made a piece further in a turn, 40 pages would hold the loop up for as long as a whole one.
"""

import os
import selectors
from typing import Protocol


class Maker(Protocol):
    """A connection whose response is being made."""

    def work(self) -> None: ...


class Makers:
    """They wait for no event of their clients', who can't hold each other up."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._waiting: dict[Maker, None] = {}  # in the order in which they asked
        self._bell = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # always readable, watched while there are any

    def add(self, maker: Maker) -> None:
        """Its `work` is called, once in a turn, when those before it are done."""
        if not self._waiting:
            self._selector.register(self._bell, selectors.EVENT_READ, self._work)
        self._waiting[maker] = None

    def drop(self, maker: Maker) -> None:
        """It is done, or has left; nothing where it isn't there."""
        if maker in self._waiting:
            del self._waiting[maker]
            if not self._waiting:
                self._selector.unregister(self._bell)

    def close(self) -> None:
        """After all of them were dropped; may be called twice."""
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1

    def _work(self, _mask: int) -> None:
        for maker in self._waiting:
            maker.work()
            return


__all__ = ["Makers"]
