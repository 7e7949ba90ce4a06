"""A ledger whose disk stands still for a while, for who asks it for jobs."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from wattribute.agent.ledger.opening import SavedJob
from wattribute.agent.ledger.reader import Reader, read_only


class SlowDisk:
    """Opens a ledger whose answers come while it is `up`."""

    def __init__(self) -> None:
        self.up = threading.Event()
        self.up.set()

    def open(self, state_dir: Path) -> Reader:
        disk, reader = self, read_only(state_dir)

        class Slow(Reader):
            def __init__(self) -> None:
                pass

            def job(self, key: str) -> SavedJob | None:
                disk.up.wait()
                return reader.job(key)

            def close(self) -> None:
                reader.close()

        return Slow()

    @contextlib.contextmanager
    def hangs(self) -> Iterator[None]:
        self.up.clear()
        try:
            yield
        finally:
            self.up.set()
