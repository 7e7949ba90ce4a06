"""What the agent's web server shows: `/metrics`, `/healthz`, and `/` for a person with a browser or a phone.

The page at `/` draws `/live.json` with the files under `/page/`; what it needs no script for is in it as plain tables.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from html import escape

from wattribute.agent.core.model import ENERGY_SLOTS, QUALITIES, TERM_SLOT, TERMS, JobTotals, Snapshot, SourceHealth
from wattribute.agent.core.units import NS_PER_S, g_of, j_of
from wattribute.exporters.assets import SERVED, asset, show_asset
from wattribute.exporters.live import LivePage, by_quality
from wattribute.exporters.messages import Making, RequestHead, Response, Route
from wattribute.exporters.negotiation import accepts_gzip, choose_format
from wattribute.exporters.prometheus import CONTENT_TYPE, PrometheusPage

JOBS_SHOWN = 100
MANY = 500
SLICE_S = 0.005
"""So long a page holds up the agent's loop at a time: that of 5,000 jobs takes many times as long."""

_HTML_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)
_PLAIN = "<!-- plain -->"
_ASCE_TERMS = [TERM_SLOT[term] for term in TERMS]  # ASC^e is the sum of all seven


def pages(metrics: PrometheusPage, problem: Callable[[], str], interval_s: float = 1.0) -> Mapping[str, Route]:
    """The routes of the agent. `problem` says in words why the agent isn't healthy; "" where it is.

    `interval_s`: how often the agent measures, which the page is told.
    """
    live = LivePage(interval_s)

    def show_metrics(request: RequestHead) -> Response | Making:
        if metrics.snapshot is None:
            # An empty page would look like counters that vanished; a failed scrape is what it is.
            return Response(status=503, body=b"nothing measured yet\n", headers=(("Retry-After", "1"),))
        form = choose_format(request.headers.get("accept", ""))
        compressed = accepts_gzip(request.headers.get("accept-encoding", ""))
        encoding = (("Content-Encoding", "gzip"),) if compressed else ()
        rendering = metrics.rendering(form, compressed=compressed)

        def go_on() -> Response | None:
            body = rendering.go_on(SLICE_S)
            headers = (("Vary", "Accept, Accept-Encoding"), *encoding)
            return None if body is None else Response(content_type=CONTENT_TYPE[form], body=body, headers=headers)

        # To take the snapshot of many jobs took its time already.
        return (None if len(metrics.snapshot.jobs) > MANY else go_on()) or Making(go_on)

    def show_health(_request: RequestHead) -> Response:
        why = problem()
        return Response(status=503, body=f"{why}\n".encode(errors="replace")) if why else Response(body=b"ok\n")

    def show_index(_request: RequestHead) -> Response:
        plain = "".join(_plain(metrics.snapshot, problem()))
        body = asset("index.html").plain.decode().replace(_PLAIN, plain).encode(errors="replace")
        return Response(content_type="text/html; charset=utf-8", body=body, headers=_HTML_HEADERS)

    def show_live(request: RequestHead) -> Response:
        return live.answer(request, metrics.snapshot, problem())

    return {
        "/metrics": show_metrics,
        "/healthz": show_health,
        "/": show_index,
        "/live.json": show_live,
        **{f"/page/{name}": partial(show_asset, name) for name in SERVED},
    }


def _plain(snapshot: Snapshot | None, why: str) -> Iterator[str]:
    """The tables for who runs no script: curl, a text browser, a browser that was told so."""
    if why:
        yield f'<p class="down">{escape(why)}</p>'
    if snapshot is None:
        yield "<p>Nothing measured yet.</p>"
        return
    yield f'<p class="dim">version {escape(snapshot.version)} on node {escape(snapshot.node_id)}</p>'
    yield '<h2>Sources</h2><div class="wide"><table><tr><th>source<th>state<th class="n">last read'
    yield '<th class="n">failures' + ("<th>why<th>fix" if any(source.why for source in snapshot.sources) else "")
    for source in snapshot.sources:
        yield from _source_row(source, snapshot.taken_at_unix_ns)
    yield "</table></div>"
    yield from _jobs_table([totals for totals in snapshot.jobs if totals.info])


def _source_row(source: SourceHealth, now_unix_ns: int) -> Iterator[str]:
    at_ns = source.last_read_unix_ns
    never = "" if source.up else "never"  # what is up without a read is only written to: the ledger
    age = never if at_ns is None else f"{max(0, now_unix_ns - at_ns) / NS_PER_S:.1f} s ago"
    state = "up" if source.up else '<span class="down">down</span>'
    failures = ", ".join(f"{reason}: {count}" for reason, count in source.failures.items()) or "none"
    yield f'<tr><td>{escape(source.name)}<td>{state}<td class="n">{age}<td class="n">{escape(failures)}'
    if source.why:
        yield f"<td>{escape(source.why)}<td><code>{escape(source.fix)}</code>"


def _jobs_table(jobs: list[JobTotals]) -> Iterator[str]:
    running = sum(totals.running for totals in jobs)
    yield f"<h2>Jobs</h2><p>{running} running, {len(jobs) - running} ended a short while ago.</p>"
    if not jobs:
        return
    yield '<div class="wide"><table><tr><th>job<th>product<th>role<th>state<th class="n">J<th>quality'
    yield '<th class="n">gCO<sub>2</sub>e (ASC<sup>e</sup>)'
    used_first = sorted(jobs, key=lambda totals: (not totals.running, -sum(totals.values[:ENERGY_SLOTS])))
    for totals in used_first[:JOBS_SHOWN]:
        job = totals.job
        energy_j = j_of(sum(totals.values[:ENERGY_SLOTS]))
        asce_g = g_of(sum([totals.values[slot] for slot in _ASCE_TERMS]))
        # bdi: an id in a right-to-left script, or with an override in it, stays in its own cell.
        yield f"<tr><td><bdi>{escape(job.id)}</bdi>"
        yield f"<td><bdi>{escape(job.product_id)}</bdi><td>{escape(job.role)}"
        quality = ", ".join(name for name, uj in zip(QUALITIES, by_quality(totals.values), strict=True) if uj)
        yield f'<td>{"running" if totals.running else "ended"}<td class="n">{energy_j:,.3f}<td>{quality}'
        yield f'<td class="n">{asce_g:,.6f}'
    yield "</table></div>"
    if len(jobs) > JOBS_SHOWN:
        yield f"<p>And {len(jobs) - JOBS_SHOWN} more: see /metrics.</p>"
    yield '<p class="dim">ASC<sup>e</sup> is a price, not an inventory: it holds shares of what other jobs emitted.</p>'
