"""track(): a decorator that makes each call of a function a job: plain, async, generator and async generator."""

import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from typing import Any, TypeVar, overload

from wattribute.agent.new_job import job
from wattribute.agent.session import Job, inside, stepwise

F = TypeVar("F", bound=Callable[..., Any])


@overload
def track(function: F, /) -> F: ...
@overload
def track(
    *,
    id: str | None = None,
    product: str | None = None,
    uses: Iterable[str] = (),
    role: str = "use",
    phase: str = "",
    weight: int = 1,
    nodes: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> Callable[[F], F]: ...
def track(function: Any = None, /, **options: Any) -> Any:
    """Each call is a job, with an id found as `job()` does it; options are those of `job()`.

    A generator's job runs from its first value to its last. Raises ValueError at once for options that can't be,
    TypeError for what isn't a function.
    """
    job(**options)  # wrong options are told where they stand, not at the first call
    return _wrapped(function, options) if function is not None else lambda later: _wrapped(later, options)


def _wrapped(function: Any, options: dict[str, Any]) -> Any:
    if inspect.isclass(function) or not callable(function):
        raise TypeError(f"track() takes a function, not {function!r}; options have names: track(product=...)")
    if inspect.isasyncgenfunction(function):
        return _stream(function, options)
    if inspect.isgeneratorfunction(function):
        return _generator(function, options)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            with job(**options):
                return await function(*args, **kwargs)

        return run

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with job(**options):
            return function(*args, **kwargs)

    return call


class _Steps(Generator[Any, Any, Any]):
    """A generator whose steps, and nothing between them, are inside a job."""

    def __init__(self, steps: Generator[Any, Any, Any], within: Job) -> None:
        self._steps = steps
        self._within = within

    def send(self, value: Any) -> Any:
        with inside(self._within):
            return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        with inside(self._within):
            return self._steps.throw(*error)


def _generator(function: Any, options: dict[str, Any]) -> Any:
    @functools.wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        this = job(**options)
        with stepwise(this):
            return (yield from _Steps(function(*args, **kwargs), this))

    return generate


def _stream(function: Any, options: dict[str, Any]) -> Any:
    @functools.wraps(function)
    async def stream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        this = job(**options)
        with stepwise(this):
            async with contextlib.aclosing(function(*args, **kwargs)) as steps:
                step = steps.asend(None)
                while True:
                    with inside(this):
                        try:
                            item = await step
                        except StopAsyncIteration:
                            return
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 - handed on, as `yield from` does (PEP 380)
                        step = steps.athrow(error)
                    else:
                        step = steps.asend(sent)

    return stream


__all__ = ["track"]
