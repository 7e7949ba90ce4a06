"""CPU time of the cgroups that keep the node running (system daemons), without the jobs that happen to live in them."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from wattribute.agent.core.model import ProcessId
from wattribute.agent.core.trees import Tree
from wattribute.collectors.process.node import CounterFile

RETRY_NS = 5_000_000_000


class OverheadTime:
    """Cumulative nanoseconds of some cgroups less what watched trees used in them; never falls.

    A tree counts as inside by its root's cgroup at the watch. A cgroup that isn't there is 0, and looked for again.
    """

    def __init__(self, proc: Path, cgroup: Path, names: Sequence[str], now_ns: Callable[[], int]) -> None:
        self._proc = proc
        self._cgroup = cgroup
        paths = {PurePosixPath("/", name) for name in names}
        # One inside another is counted with it.
        self._names = sorted(path for path in paths if paths.isdisjoint(path.parents))
        self._now_ns = now_ns
        self._files: dict[PurePosixPath, CounterFile] = {}
        self._looked_ns: int | None = None
        self._used_ns = 0
        self._shown_ns = 0
        self._inside: dict[ProcessId, int] = {}
        self._jobs_ns = 0

    def holds(self, pid: int) -> bool:
        """Whether a process lives in one of the cgroups."""
        if not self._names:
            return False
        try:
            text = (self._proc / str(pid) / "cgroup").read_text()
        except OSError:
            return False
        for line in text.splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "name=systemd") or "cpuacct" in controllers.split(","):
                here = PurePosixPath(path)
                if any(here == name or name in here.parents for name in self._names):
                    return True
        return False

    def enter(self, root: ProcessId) -> None:
        """A tree was watched: from now on what it uses inside is the job's."""
        if self.holds(root.pid):
            self._inside[root] = 0

    def leave(self, root: ProcessId, billed_ns: int) -> None:
        """A tree isn't watched any more."""
        self._jobs_ns += billed_ns - self._inside.pop(root, billed_ns)

    def read_ns(self, trees: Iterable[Tree]) -> int:
        """Cumulative. Where jobs' time is learnt late, what they used before is held back from the next."""
        if not self._names:
            return 0
        now_ns = self._now_ns()
        if self._looked_ns is None or now_ns - self._looked_ns >= RETRY_NS:
            self._looked_ns = now_ns
            self._look()
        for name, file in list(self._files.items()):
            seen_ns = file.seen_ns
            try:
                self._used_ns += file.read_ns() - seen_ns
            except OSError:  # ENODEV: removed
                self._files.pop(name).close()
        if self._inside:
            for tree in trees:
                if tree.root in self._inside:
                    self._jobs_ns += tree.billed_ns - self._inside[tree.root]
                    self._inside[tree.root] = tree.billed_ns
        self._shown_ns = max(self._shown_ns, self._used_ns - self._jobs_ns)
        return self._shown_ns

    def _look(self) -> None:
        for name in self._names:
            if name in self._files:
                continue
            below = str(name).lstrip("/")
            for path, scale in (
                (self._cgroup / below / "cpu.stat", 1000),
                (self._cgroup / "unified" / below / "cpu.stat", 1000),
                (self._cgroup / "cpuacct" / below / "cpuacct.usage", 1),
                (self._cgroup / "cpu,cpuacct" / below / "cpuacct.usage", 1),
            ):
                try:
                    self._files[name] = CounterFile(path, scale)
                except OSError:
                    continue
                break

    def close(self) -> None:
        """Give all files back."""
        for file in self._files.values():
            file.close()
        self._files.clear()
