"""Decorators that make each call of a function a run, or a task of one; and a context manager of a task."""

import functools
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from wattribute.agent.codecarbon import settings
from wattribute.agent.codecarbon.tracker import EmissionsTracker, OfflineEmissionsTracker


def track_emissions(fn: Callable[..., Any] | None = None, *args: Any, **named: Any) -> Any:
    """Each call is a run of its own; `offline=True` takes OfflineEmissionsTracker. Coroutine functions too."""
    given = {**dict(zip((*settings.ONLINE, "offline", *settings.OFFLINE), args, strict=False)), **named}
    kind = OfflineEmissionsTracker if given.pop("offline", None) else EmissionsTracker
    if kind is EmissionsTracker:
        given = {name: value for name, value in given.items() if name not in settings.OFFLINE}
    return _wrapped(fn, kind, given) if fn is not None else lambda later: _wrapped(later, kind, given)


track_emissions.__signature__ = settings.signature(  # type: ignore[attr-defined]
    "fn", *settings.ONLINE, "offline", *settings.OFFLINE
)


def _wrapped(fn: Callable[..., Any], kind: type[EmissionsTracker], given: dict[str, Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(fn):

        @functools.wraps(fn)
        async def run(*args: Any, **named: Any) -> Any:
            with kind(**given):
                return await fn(*args, **named)

        return run

    @functools.wraps(fn)
    def call(*args: Any, **named: Any) -> Any:
        with kind(**given):
            return fn(*args, **named)

    return call


class TaskEmissionsTracker:
    """A task as a context manager: of `tracker`, or of a run of its own."""

    def __init__(self, task_name: str | None = None, tracker: EmissionsTracker | None = None) -> None:
        self.task_name = task_name
        self.tracker = tracker or EmissionsTracker()
        self._owns = tracker is None

    def __enter__(self) -> Self:
        self.tracker.start_task(self.task_name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tracker.stop_task()
        if self._owns:
            self.tracker.stop()


def track_task_emissions(
    fn: Callable[..., Any] | None = None, tracker: EmissionsTracker | None = None, task_name: str = ""
) -> Any:
    """Each call is a task of `tracker`, or of a run of its own."""
    if fn is None:
        return lambda later: track_task_emissions(later, tracker, task_name)

    @functools.wraps(fn)
    def call(*args: Any, **named: Any) -> Any:
        with TaskEmissionsTracker(task_name, tracker):
            return fn(*args, **named)

    return call
