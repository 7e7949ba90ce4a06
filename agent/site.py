"""What the daemon serves over HTTP; a page is made when it is asked for, at most once per tick."""

from collections.abc import Mapping

from wattribute.agent.core.model import Snapshot
from wattribute.agent.node import Node
from wattribute.exporters.messages import Making, RequestHead, Response, Route
from wattribute.exporters.page import pages
from wattribute.exporters.prometheus import PrometheusPage


class Site:
    """The pages of one node, measured every `interval_s`; with `exemplars`, /metrics names single requests."""

    def __init__(self, node: Node, *, exemplars: bool = False, interval_s: float = 1.0) -> None:
        self._node = node
        self._interval_s = interval_s
        self._page = PrometheusPage(exemplars=exemplars)
        self._shown = (-1, -1)

    def routes(self) -> Mapping[str, Route]:
        """Path -> page."""
        routes = pages(self._page, self._problem, self._interval_s)
        # Files of the page are the same whatever is measured.
        return {p: route if p.startswith("/page/") else self._current(route) for p, route in routes.items()}

    def snapshot(self) -> Snapshot | None:
        """What the pages show now; None where nothing is measured yet."""
        self._refresh()
        return self._page.snapshot

    def metrics_text(self) -> bytes:
        """The metrics page as it is now, in text format 0.0.4."""
        self._refresh()
        return self._page.text()

    def _current(self, route: Route) -> Route:
        def show(request: RequestHead) -> Response | Making:
            self._refresh()
            return route(request)

        return show

    def _refresh(self) -> None:
        shown = self._node.version_shown
        if shown != self._shown and shown[0]:
            self._shown = shown
            self._page.publish(self._node.snapshot())

    def _problem(self) -> str:
        return self._node.problem()
