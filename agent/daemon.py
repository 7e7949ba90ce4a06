"""The daemon: one loop that ticks, answers jobs and serves `/metrics`; the only owner of a clock.

Everything that may block has a thread of its own (sensors, the ledger's disk), so that a job's start and a scrape
are answered at once.
"""

import contextlib
import gc
import logging
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wattribute import __version__
from wattribute.agent.config import Config, Loaded, listen_address
from wattribute.agent.control import ControlServer
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.dispatch import Dispatch
from wattribute.agent.node import Node
from wattribute.agent.notify import Notifier
from wattribute.agent.opening import open_daemon_node
from wattribute.agent.site import Site
from wattribute.exporters.web import WebServer

if TYPE_CHECKING:
    from wattribute.exporters.otlp_push import OtlpPusher
    from wattribute.exporters.web.door import Door

log = logging.getLogger("wattribute")

GC_OBJECTS = 50_000
"""A tick makes some thousand short-lived objects and no cycles: the usual 700 would look for some ten times a tick."""

LATE_S = 0.005
"""A tick that begins this much after its time (and a tenth of an interval) is counted as late."""


def serve(loaded: Loaded, *, once: bool) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code. Raises WattributeError where it can't start."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="wattribute: %(levelname)s: %(message)s")
    for warning in loaded.warnings:
        log.warning("%s", warning)
    # Before anything else is started: its variables aren't for children.
    with contextlib.closing(Notifier(os.environ, interval_s=loaded.config.agent.interval_s)) as notifier:
        node = open_daemon_node(loaded)
        try:
            return _measure_once(node, loaded) if once else _serve(node, loaded, notifier)
        finally:
            node.close()


def _measure_once(node: Node, loaded: Loaded) -> int:
    node.tick(patience_ns=NS_PER_S)
    time.sleep(loaded.config.agent.interval_s)
    node.tick(patience_ns=NS_PER_S)
    node.flush()
    sys.stdout.buffer.write(Site(node).metrics_text())
    return 0


def _serve(node: Node, loaded: Loaded, notifier: Notifier) -> int:
    config = loaded.config
    host, port = listen_address(config.agent.listen)
    interval_s = min(config.agent.interval_s, 1.0) if node.wants_power_samples else config.agent.interval_s
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        stopping, wake = stack.enter_context(_signals(selector))
        dispatch = Dispatch(node, interval_s=interval_s, version=__version__)
        control = ControlServer(selector, Path(config.agent.socket), dispatch)
        stack.callback(control.close)
        site = Site(node, exemplars=config.serving.exemplars, interval_s=interval_s)
        web = WebServer(selector, host, port, site.routes(), _door(config, selector))
        stack.callback(web.close)
        node.condition.web = web
        node.condition.otlp = pusher = _pusher(config)
        if pusher is not None:
            stack.callback(pusher.close)
        for wakeup_fd in node.record.wakeup_fds:
            selector.register(wakeup_fd, selectors.EVENT_READ, partial(_drain, wakeup_fd))
        node.tick(patience_ns=NS_PER_S)
        node.flush()
        scheme = "http" if web.door is None or web.door.tls is None else "https"
        shown = f"[{host}]" if ":" in host else host
        log.info("listening on %s://%s:%s and %s", scheme, shown, port, config.agent.socket)
        gc.collect()
        gc.freeze()  # what start-up made lives for good: never walk it again
        gc.set_threshold(GC_OBJECTS)
        _tell(notifier, node)
        _loop(node, dispatch, control, web, selector, stopping, wake, interval_s, notifier, _offers(site, pusher))
        notifier.stopping()
        node.tick()
        node.flush()
        if pusher is not None:
            pusher.finish(site.snapshot())
    log.info("stopped")
    return 0


def _loop(
    node: Node,
    dispatch: Dispatch,
    control: ControlServer,
    web: WebServer,
    selector: selectors.BaseSelector,
    stopping: list[int],
    wake: Callable[[], None],
    interval_s: float,
    notifier: Notifier,
    offer: Callable[[], None],
) -> None:
    next_tick_s = _now_s()
    next_expiry_s = next_tick_s + 1.0
    while not stopping:
        wait_s = min(next_tick_s, _edge_s(node), next_expiry_s) - _now_s()
        for key, mask in selector.select(max(0.0, min(wait_s, dispatch.wait_s))):
            key.data(mask)
            if _now_s() >= next_tick_s:
                break  # what is left is still ready after the tick: no flood of requests makes that late
        now_s = _now_s()
        if now_s >= next_tick_s:
            late_s = now_s - next_tick_s
            node.tick(late=late_s > max(LATE_S, 0.1 * interval_s), late_ns=round(late_s * NS_PER_S))
            # Ticks that were missed altogether aren't made up for: the next window is simply longer.
            next_tick_s += interval_s * max(1, math.ceil((_now_s() - next_tick_s) / interval_s))
            _tell(notifier, node)
        else:
            node.edge(wake)
            dispatch.work()
        if node.show():
            dispatch.settle()
        if now_s >= next_expiry_s:
            next_expiry_s = now_s + 1.0
            dispatch.settle()  # who waits has a deadline, also while the disk stands still and there is no news
            control.expire(time.monotonic())
            web.expire(time.monotonic())
            node.refused = control.refused
            offer()


def _door(config: Config, selector: selectors.BaseSelector) -> "Door | None":
    """What the web file asks of who scrapes. Raises ConfigError where it doesn't hold."""
    if not config.web.config_file:
        return None
    from wattribute.exporters.web.door import Door

    return Door(selector, Path(config.web.config_file))


def _pusher(config: Config) -> "OtlpPusher | None":
    """What pushes to an OpenTelemetry Collector. Raises ConfigError where its package isn't installed."""
    if not config.otlp.endpoint:
        return None
    from wattribute.exporters.otlp import OtlpEncoder
    from wattribute.exporters.otlp_push import OtlpPusher

    own = config.otlp
    encoder = OtlpEncoder(host_name=socket.gethostname(), started_unix_ns=time.time_ns())
    return OtlpPusher(own.endpoint, encoder, os.environ, interval_s=own.interval_s, timeout_s=own.timeout_s)


def _offers(site: Site, pusher: "OtlpPusher | None") -> Callable[[], None]:
    """Hands the pusher what the page shows, when it is time for that."""

    def offer() -> None:
        if pusher is not None and pusher.wanted and (snapshot := site.snapshot()) is not None:
            pusher.publish(snapshot)

    return offer


def _tell(notifier: Notifier, node: Node) -> None:
    """After a tick that came to its end, and only then."""
    if notifier.listens:
        running = sum(live.running for live in node.registry.jobs.values())
        down = [source.name for source in node.condition.sources() if not source.up]
        notifier.ticked(f"{running} jobs run; " + (f"not read: {', '.join(down)}" if down else "all sources are read"))


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _edge_s(node: Node) -> float:
    edge_ns = node.edge_due_ns()
    return math.inf if edge_ns is None else edge_ns / NS_PER_S


@contextlib.contextmanager
def _signals(selector: selectors.BaseSelector) -> Iterator[tuple[list[int], Callable[[], None]]]:
    """SIGTERM and SIGINT end up in a list, and wake the loop; so does the function, from any thread.

    So does SIGHUP, where it says that a terminal has gone. A service is told it by whoever thinks that it reads its
    settings anew: systemd would take a death of it for a stop that was asked for.
    """
    stopping: list[int] = []
    woken, wake = socket.socketpair()
    with woken, wake:
        woken.setblocking(False)
        wake.setblocking(False)
        selector.register(woken, selectors.EVENT_READ, lambda mask: woken.recv(64))
        before = signal.set_wakeup_fd(wake.fileno())
        handlers = {
            number: signal.signal(number, lambda caught, frame: stopping.append(caught))
            for number in (signal.SIGTERM, signal.SIGINT)
        }

        def hang_up(caught: int, frame: object) -> None:
            if on_terminal:
                stopping.append(caught)
            else:
                log.info("SIGHUP: settings are read at the start, keys and the web file when they change")

        on_terminal = sys.stdin is not None and sys.stdin.isatty()
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # else nohup's
            handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)

        def call() -> None:
            with contextlib.suppress(BlockingIOError):
                wake.send(b"\0")

        try:
            yield stopping, call
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _drain(fd: int, mask: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 4096)
