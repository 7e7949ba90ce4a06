"""What the agent's routes answer."""

import dataclasses
import gzip
import re
from collections.abc import Callable
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from tests.exporters.snapshots import jobs, snapshot, source, totals

from wattribute.agent.core.model import Job
from wattribute.exporters.assets import FOLDER, SERVED
from wattribute.exporters.messages import Making, RequestHead, Response
from wattribute.exporters.page import JOBS_SHOWN, pages
from wattribute.exporters.prometheus import PrometheusPage

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"


def ask(page: PrometheusPage, path: str, problem: Callable[[], str] = str, **headers: str) -> Response:
    head = RequestHead("GET", path, "", {name.replace("_", "-"): value for name, value in headers.items()}, True)
    answer = pages(page, problem)[path](head)
    while isinstance(answer, Making):
        answer = answer.go_on() or answer
    return answer


def shown() -> PrometheusPage:
    page = PrometheusPage()
    page.publish(snapshot(jobs(3)))
    return page


class Tags(HTMLParser):
    """Every tag and attribute of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def parsed(response: Response) -> Tags:
    tags = Tags()
    tags.feed(response.body.decode())
    return tags


def test_metrics_in_the_form_that_was_asked_for() -> None:
    page = shown()
    plain = ask(page, "/metrics")
    assert (plain.content_type, plain.body) == ("text/plain; version=0.0.4; charset=utf-8", page.text())
    packed = ask(page, "/metrics", accept="application/openmetrics-text", accept_encoding="gzip")
    assert packed.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert ("Content-Encoding", "gzip") in packed.headers
    assert ("Vary", "Accept, Accept-Encoding") in packed.headers
    assert gzip.decompress(packed.body) == page.openmetrics()


def test_before_the_first_snapshot_a_scrape_fails_rather_than_showing_nothing() -> None:
    assert ask(PrometheusPage(), "/metrics").status == 503
    assert b"Nothing measured yet" in ask(PrometheusPage(), "/").body


def test_health() -> None:
    good, bad = ask(shown(), "/healthz"), ask(shown(), "/healthz", lambda: "the last tick was 30 s ago")
    assert (good.status, good.body) == (200, b"ok\n")
    assert (bad.status, bad.body) == (503, b"the last tick was 30 s ago\n")


def test_the_index_tells_sources_and_jobs() -> None:
    tags = parsed(ask(shown(), "/", lambda: "disk full"))
    for text in ("0.1.0", "node-a", "rapl", "3.0 s ago", "driver gone", "modprobe nvidia", "never", "timeout: 3"):
        assert text in tags.text
    assert "disk full" in tags.text
    assert "2 running, 1 ended" in tags.text
    assert {"job-0", "job-1", "product-2"} <= set(re.findall(r"[\w-]+", tags.text))


def test_the_index_runs_its_own_files_alone() -> None:
    response = ask(shown(), "/")
    policy = dict(response.headers)["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
    assert "unsafe" not in policy
    tags = parsed(response)
    assert {"style", "img", "iframe", "form", "base"}.isdisjoint(tags.tags)
    assert {name for name in tags.attributes if name.startswith("on")} | {"style"} & tags.attributes == set()
    places = re.findall(r'(?:src|href)="([^"#]+)"', response.body.decode())
    # Relative, so that the page works behind a path of a proxy.
    assert set(places) <= {f"page/{name}" for name in SERVED} | {"metrics", "healthz", "live.json"}
    assert b"//" not in response.body.replace(b"<!--", b"")


def test_every_file_of_the_page_is_served_and_asked_for_once() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*SERVED, "index.html", "uplot.LICENSE"}
    for name in SERVED:
        whole = ask(shown(), f"/page/{name}")
        assert whole.body == (FOLDER / name).read_bytes()
        packed = ask(shown(), f"/page/{name}", accept_encoding="gzip")
        assert ("Content-Encoding", "gzip") in packed.headers
        assert gzip.decompress(packed.body) == whole.body
        headers = dict(whole.headers)
        assert headers["ETag"] == dict(packed.headers)["ETag"]
        assert "Accept-Encoding" in headers["Vary"]
        known = ask(shown(), f"/page/{name}", if_none_match=headers["ETag"])
        assert (known.status, known.body) == (304, b"")
        assert ask(shown(), f"/page/{name}", if_none_match='"another"').status == 200


def test_a_module_imports_what_is_served() -> None:
    for name in SERVED:
        if name.endswith(".js"):
            source = (FOLDER / name).read_text()
            assert set(re.findall(r'from "\./([^"]+)"', source)) <= set(SERVED)
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", source)


def test_what_others_named_is_text_and_nothing_else() -> None:
    clean = parsed(ask(shown(), "/", lambda: "why"))
    hostile_source = source(HOSTILE, up=False, why=HOSTILE, fix=HOSTILE)
    evil = dataclasses.replace(hostile_source, failures={HOSTILE: 1})
    page = PrometheusPage()
    job = Job(id=HOSTILE, product_id=HOSTILE)
    page.publish(snapshot([totals(job)], sources=[evil], version=HOSTILE, node_id=HOSTILE))
    attacked = parsed(ask(page, "/", lambda: HOSTILE))
    assert set(attacked.tags) <= set(clean.tags)
    assert attacked.attributes <= clean.attributes
    assert attacked.text.count(HOSTILE) == 9


@given(st.text(st.characters(), max_size=20))
def test_no_name_breaks_the_index(name: str) -> None:
    page = PrometheusPage()
    page.publish(snapshot([totals(Job(id=name))], sources=[source(name)], node_id=name))
    assert ask(page, "/", lambda: name).body


def test_long_lists_are_cut_and_folded_jobs_left_out() -> None:
    page = PrometheusPage()
    page.publish(snapshot([*jobs(JOBS_SHOWN + 5), totals(Job(id="_retired"), info=False)]))
    tags = parsed(ask(page, "/"))
    assert "And 5 more" in tags.text
    assert "_retired" not in tags.text
