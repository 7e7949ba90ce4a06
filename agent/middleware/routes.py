"""Which route a request will take, by the routes of Starlette and FastAPI, before they have looked: its template, as
in `/users/{id}`, of which there are as many as the application declares.
"""

from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

from wattribute.agent.process import here

_FULL = 2  # starlette.routing.Match: the path and the method are a route's
_KEPT = 1024  # paths whose route is remembered
Scope = MutableMapping[str, Any]


class Routes:
    """The templates of an application's routes. Framework objects are taken as they are: nothing is imported."""

    def __init__(self, app: object) -> None:
        self._app = app
        self._known: dict[tuple[str, str], str] = {}

    def template(self, scope: Scope) -> str:
        """The template of the route that a request will take; empty where none does."""
        asked = (scope.get("method", ""), scope["path"])
        known = self._known.get(asked)
        if known is not None:
            return known
        routes = getattr(scope.get("app", self._app), "routes", None)
        if routes is None:
            here().say_once(
                "no routes",
                "tenant='route' needs the routes of Starlette or FastAPI: put the middleware around the application "
                "itself, or in it; until then requests have no tenant",
            )
            return ""
        found = _template(routes, scope)
        if found:  # paths that have no route are whatever a stranger likes
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[asked] = found
        return found


def _template(routes: Iterable[Any], scope: Scope) -> str:
    partial = ""
    for route in _flat(routes):
        match, more = route.matches(scope)
        if match.value == 0:
            continue
        path = getattr(getattr(route, "starlette_route", None) or route, "path", "")
        inner = getattr(route, "routes", None)
        if inner:  # a mounted application
            path += _template(inner, {**scope, **more})
        if match.value == _FULL:
            return str(path)
        partial = partial or str(path)
    return partial


def _flat(routes: Iterable[Any]) -> Iterator[Any]:
    for route in routes:
        included = getattr(route, "effective_route_contexts", None)  # FastAPI's, of a router that was included
        if included is None:
            yield route
        else:
            yield from included()


__all__ = ["Routes"]
