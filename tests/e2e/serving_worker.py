"""A worker process of a served product under random load; what it did stands in shared memory, which no kill loses.

python serving_worker.py load BOARD NUMBER | fork BOARD | alone NUMBER: serves the product `llama` until the board says
stop, as worker NUMBER, or as worker 0 with children of its own; alone it prints what its requests took.
"""

import json
import mmap
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import wattribute

WORKERS, THREADS = 8, 3
TENANTS = ("", "acme", "zeta")
STOP, FIRST = 0, 8
FIELDS = ("beginning", "began", "ending", "ended", "aborting", "aborted", "tokens", "raised")
CELLS = FIRST + WORKERS * THREADS * len(TENANTS) * len(FIELDS)


class Board:
    """A file of whole numbers, one writer for each: by worker, thread, tenant and field, and the word to stop.

    Each step is noted before it is done and after, so that who looks at a stopped process knows whether it is in one.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(8 * CELLS))
        with path.open("r+b") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), 8 * CELLS)).cast("q")

    def at(self, worker: int, thread: int, tenant: str, field: str) -> int:
        """The place of a number."""
        row = (worker * THREADS + thread) * len(TENANTS) + TENANTS.index(tenant)
        return FIRST + row * len(FIELDS) + FIELDS.index(field)

    def add(self, place: int, more: int = 1) -> None:
        self._cells[place] += more

    def sum(self, field: str, *, worker: int | None = None, tenant: str | None = None) -> int:
        """Over all, or those of a worker or a tenant."""
        return sum(
            self._cells[self.at(one, thread, name, field)]
            for one in (range(WORKERS) if worker is None else (worker,))
            for thread in range(THREADS)
            for name in (TENANTS if tenant is None else (tenant,))
        )

    def within_a_step(self, worker: int) -> bool:
        """Whether a thread of a stopped worker is between two notes."""
        return any(
            self.sum(before, worker=worker) != self.sum(after, worker=worker)
            for before, after in (("beginning", "began"), ("ending", "ended"), ("aborting", "aborted"))
        )

    @property
    def stopped(self) -> bool:
        return bool(self._cells[STOP])

    def stop(self) -> None:
        self._cells[STOP] = 1


class Thread(threading.Thread):
    """One thread of a worker: begins and ends requests, several at once, for as long as it may."""

    def __init__(self, meter: "wattribute.Meter", board: Board, worker: int, number: int) -> None:
        super().__init__(name=f"serving-{number}")
        self._meter = meter
        self._board = board
        self._place = worker, number
        self._dice = random.Random(worker * 1000 + number)

    def run(self) -> None:
        try:
            while not self._board.stopped:
                self._serve(self._dice.randint(1, 3))
        except BaseException:
            self._board.add(self._board.at(*self._place, "", "raised"))
            raise

    @contextmanager
    def _noted(self, tenant: str, before: str, after: str) -> Iterator[None]:
        self._board.add(self._board.at(*self._place, tenant, before))
        yield
        self._board.add(self._board.at(*self._place, tenant, after))

    def _serve(self, at_once: int) -> None:
        dice, held = self._dice, []
        for _ in range(at_once):
            # Some tenants are rare, so that what is told of them isn't told again soon.
            tenant = dice.choices(TENANTS, (60, 20, 1))[0]
            with self._noted(tenant, "beginning", "began"):
                held.append((tenant, self._meter.begin(tenant, dice.choice((1, 1, 2, 3)), receipt=dice.random() < 0.3)))
        burn(dice.uniform(0, 0.001))
        time.sleep(dice.choice((0.002, 0.01, 0.03)))
        dice.shuffle(held)
        for tenant, request in held:
            if dice.random() < 0.05:
                with self._noted(tenant, "aborting", "aborted"):
                    request.end(aborted=True)
            else:
                tokens = dice.randint(0, 9)
                with self._noted(tenant, "ending", "ended"):
                    request.end({"token": tokens})
                    self._board.add(self._board.at(*self._place, tenant, "tokens"), tokens)
            burn(dice.uniform(0, 0.0002))


def burn(seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        pass


def serve(meter: "wattribute.Meter", board: Board, worker: int, threads: int = THREADS) -> None:
    """Until the board says stop."""
    started = [Thread(meter, board, worker, number) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def load(board: Board, worker: int) -> None:
    with wattribute.meter("llama") as meter:
        serve(meter, board, worker)


def fork(board: Board) -> None:
    """A server that loads and forks: children that end by `stop`, by `exit`, and without a word."""
    meter = wattribute.meter("llama")
    held = meter.begin("acme")
    children = []
    for worker in (1, 2, 3):
        child = os.fork()
        if child == 0:
            held.end()  # the parent's: does nothing
            serve(meter, board, worker)
            if worker == 1:
                meter.stop()
            if worker == 2:
                sys.exit()
            os._exit(0)
        children.append(child)
    serve(meter, board, 0, 1)
    if any(os.waitpid(child, 0)[1] for child in children):
        sys.exit("a child failed")
    held.end({"token": 1})
    for field, more in (("ended", 1), ("tokens", 1)):
        board.add(board.at(0, 1, "acme", field), more)
    meter.stop()


def alone(worker: int) -> None:
    """Without an agent: each process measures itself."""
    from wattribute.agent.node import Node
    from wattribute.agent.process import here

    meter = wattribute.meter("llama", receipts=True).start()
    while not meter.job.measured_here:
        time.sleep(0.01)
    requests = []
    for number in range(12):
        with meter.request({"token": 2}, tenant=TENANTS[number % 3], weight=1 + worker) as request:
            burn(0.02)
        requests.append(request)
        time.sleep(0.005)
    meter.stop()
    while meter.job.running:
        time.sleep(0.01)
    whole = meter.job.receipt
    node = here().engine(os.environ)._node
    assert isinstance(node, Node)
    node.flush()
    (served,) = node.snapshot().served
    receipts = [receipt.to_dict() for one in requests if (receipt := meter.receipt(one.id)) is not None]
    print(json.dumps({"receipts": receipts, "idle_uj": served.idle_uj, "energy_uj": whole.energy_uj}))


if __name__ == "__main__":
    mode, *words = sys.argv[1:]
    if mode == "load":
        load(Board(Path(words[0])), int(words[1]))
    elif mode == "fork":
        fork(Board(Path(words[0])))
    else:
        alone(int(words[0]))
