"""What the agent's web server shows: `/metrics`, `/healthz`, and `/` for a person with a browser or a phone."""

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from html import escape

from wattribute.agent.core.model import ENERGY_SLOTS, TERM_SLOT, TERMS, JobTotals, Snapshot, SourceHealth
from wattribute.agent.core.units import NS_PER_S, g_of, j_of
from wattribute.exporters.messages import RequestHead, Response
from wattribute.exporters.negotiation import accepts_gzip, choose_format
from wattribute.exporters.prometheus import CONTENT_TYPE, PrometheusPage

JOBS_SHOWN = 100

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem;color:#1b1f24;background:#fff}
h1{font-size:1.4rem;margin:0}h2{font-size:1.1rem;margin:1.5rem 0 .5rem}
a{color:#0b57d0}nav a{margin-right:1rem}p{margin:.5rem 0}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid #d0d7de;vertical-align:top}
td{overflow-wrap:anywhere;min-width:4rem}.id{min-width:7rem}.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}th.n{white-space:normal}
.down{color:#b3261e;font-weight:600}.dim{color:#57606a}
@media(max-width:40rem){.more{display:none}}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}a{color:#79b8ff}
th,td{border-color:#30363d}.down{color:#ff7b72}.dim{color:#9198a1}}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HTML_HEADERS = (
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)
_ASCE_TERMS = [TERM_SLOT[term] for term in TERMS]  # ASC^e is the sum of all seven


def pages(metrics: PrometheusPage, problem: Callable[[], str]) -> Mapping[str, Callable[[RequestHead], Response]]:
    """The routes of the agent. `problem` says in words why the agent isn't healthy; "" where it is."""

    def show_metrics(request: RequestHead) -> Response:
        if metrics.snapshot is None:
            # An empty page would look like counters that vanished; a failed scrape is what it is.
            return Response(status=503, body=b"nothing measured yet\n", headers=(("Retry-After", "1"),))
        form = choose_format(request.headers.get("accept", ""))
        compressed = accepts_gzip(request.headers.get("accept-encoding", ""))
        encoding = (("Content-Encoding", "gzip"),) if compressed else ()
        return Response(
            content_type=CONTENT_TYPE[form],
            body=metrics.page(form, compressed=compressed),
            headers=(("Vary", "Accept, Accept-Encoding"), *encoding),
        )

    def show_health(_request: RequestHead) -> Response:
        why = problem()
        return Response(status=503, body=f"{why}\n".encode(errors="replace")) if why else Response(body=b"ok\n")

    def show_index(_request: RequestHead) -> Response:
        body = "".join(_index(metrics.snapshot, problem())).encode(errors="replace")
        return Response(content_type="text/html; charset=utf-8", body=body, headers=_HTML_HEADERS)

    return {"/metrics": show_metrics, "/healthz": show_health, "/": show_index}


def _index(snapshot: Snapshot | None, why: str) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1"><title>wattribute</title>'
    yield f"<style>{_STYLE}</style><h1>wattribute</h1>"
    if snapshot is not None:
        yield f'<p class="dim">version {escape(snapshot.version)} on node {escape(snapshot.node_id)}</p>'
    yield '<nav><a href="/metrics">/metrics</a><a href="/healthz">/healthz</a></nav>'
    if why:
        yield f'<p class="down">{escape(why)}</p>'
    if snapshot is None:
        yield "<p>Nothing measured yet.</p>"
        return
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
    yield '<div class="wide"><table><tr><th>job<th class="more">product<th class="more">role<th>state<th class="n">J'
    yield '<th class="n">gCO<sub>2</sub>e (ASC<sup>e</sup>)'
    used_first = sorted(jobs, key=lambda totals: (not totals.running, -sum(totals.values[:ENERGY_SLOTS])))
    for totals in used_first[:JOBS_SHOWN]:
        job = totals.job
        energy_j = j_of(sum(totals.values[:ENERGY_SLOTS]))
        asce_g = g_of(sum([totals.values[slot] for slot in _ASCE_TERMS]))
        # bdi: an id in a right-to-left script, or with an override in it, stays in its own cell.
        yield f'<tr><td class="id"><bdi>{escape(job.id)}</bdi>'
        yield f'<td class="more"><bdi>{escape(job.product_id)}</bdi><td class="more">{escape(job.role)}'
        yield f'<td>{"running" if totals.running else "ended"}<td class="n">{energy_j:,.3f}<td class="n">{asce_g:,.6f}'
    yield "</table></div>"
    if len(jobs) > JOBS_SHOWN:
        yield f"<p>And {len(jobs) - JOBS_SHOWN} more: see /metrics.</p>"
    yield '<p class="dim">ASC<sup>e</sup> is a price, not an inventory: it holds shares of what other jobs emitted.</p>'
