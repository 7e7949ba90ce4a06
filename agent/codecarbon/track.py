"""track_emissions: a decorator that makes each call of a function a run, with the tracker's arguments."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

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
