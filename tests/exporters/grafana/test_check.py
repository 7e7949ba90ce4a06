"""The script that users run against their Grafana, against a stand-in that answers as its API does."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.exporters.grafana.boards import BOARDS, FOLDER, drawn

SOURCES: list[dict[str, Any]] = [
    {"uid": "l", "name": "Loki", "type": "loki"},
    {"uid": "p1", "name": "Other", "type": "prometheus"},
    {"uid": "p2", "name": "Prometheus", "type": "prometheus", "isDefault": True},
]
ROWS: dict[str, Any] = {"frames": [{"data": {"values": [[1], [2]]}}]}
NOTHING: dict[str, Any] = {"frames": [{"data": {"values": []}}]}


@dataclass
class Answers:
    """What the stand-in says to queries, and what it was sent."""

    to_titled: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ("job.1", "job-2")
    sources: list[dict[str, Any]] = field(default_factory=lambda: SOURCES)
    boards: dict[str, Any] = field(default_factory=dict)
    queries: list[dict[str, Any]] = field(default_factory=list)
    logins: set[str | None] = field(default_factory=set)


@contextmanager
def grafana(answers: Answers) -> Iterator[str]:
    titles = {
        target["expr"].replace("$instance", ".+"): panel["title"] for _, panel in drawn() for target in panel["targets"]
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.logins.add(self.headers["Authorization"])
            path = self.path.partition("?")[0]
            if path == "/api/health":
                self._say({"version": "0.0.0-stand-in"})
            elif path == "/api/datasources":
                self._say(answers.sources)
            elif path.startswith("/api/dashboards/uid/"):
                self._say({"dashboard": answers.boards[path.rpartition("/")[2]]})
            elif path.startswith("/api/datasources/uid/p2/resources/api/v1/label/"):
                self._say({"status": "success", "data": answers.labels})
            else:
                self._say({"message": "Not found"}, 404)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/api/dashboards/db":
                answers.boards[body["dashboard"]["uid"]] = body["dashboard"]
                self._say({"status": "success"})
            else:
                answers.queries += body["queries"]
                said = [answers.to_titled.get(titles.get(one["expr"], ""), ROWS) for one in body["queries"]]
                results = {one["refId"]: answer for one, answer in zip(body["queries"], said, strict=True)}
                self._say({"results": results}, 400 if any("error" in one for one in said) else 200)

        def _say(self, answer: Any, status: int = 200) -> None:
            text = json.dumps(answer, separators=(",", ":")).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def check(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", "-E", str(FOLDER / "check.py"), url, *words]  # the standard library alone
    env = {**os.environ, "GRAFANA_TOKEN": "secret", "no_proxy": "127.0.0.1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=60)


def test_every_panel_passes_where_there_is_data() -> None:
    answers = Answers()
    with grafana(answers) as url:
        done = check(url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Grafana 0.0.0-stand-in, data source p2\n")
    shown = list(drawn())
    assert done.stdout.endswith(f"{len(shown) + len(BOARDS)} passed, 0 failed\n")
    assert all(f"pass  {name}: {panel['title']}\n" in done.stdout for name, panel in shown)
    assert answers.boards == {board["uid"]: board for board in BOARDS.values()}
    assert answers.logins == {"Bearer secret"}
    asked = [query["expr"] for query in answers.queries]
    assert len(asked) == sum(len(panel["targets"]) for _, panel in shown)
    assert not any("$instance" in expr or "$job_id" in expr or "$product_id" in expr for expr in asked)
    assert any('job_id=~"job\\\\.1"' in expr for expr in asked)  # escaped for the regular expression and the string
    assert {query["datasource"]["uid"] for query in answers.queries} == {"p2"}


def test_no_data_and_errors_fail_by_name_and_words_for_nothing_pass() -> None:
    answers = Answers(to_titled={"PUE": NOTHING, "Failures": NOTHING, "Read time": {"error": "bad_data: no such"}})
    with grafana(answers) as url:
        done = check(url)
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert failed == ["FAIL  node: PUE (no data)", "FAIL  node: Read time (A: bad_data: no such)"]
    assert "pass  node: Failures\n" in done.stdout


def test_without_an_agent_the_variables_say_so() -> None:
    with grafana(Answers(labels=())) as url:
        done = check(url)
    assert done.returncode == 1
    assert "FAIL  job: variables (variable job_id is empty: no wattribute_job_info in the data source)" in done.stdout


def test_who_can_not_be_asked_is_another_exit_code(tmp_path: Path) -> None:
    with grafana(Answers(sources=SOURCES[:1])) as url:
        done = check(url)
        assert (done.returncode, done.stdout) == (2, "")
        assert "no Prometheus data source (there are: none)" in done.stderr
        assert check(url, "--datasource", "p3").returncode == 2
    gone = check(url)
    assert gone.returncode == 2 and "gave no answer" in gone.stderr
    with grafana(Answers()) as url:
        missing = check(url, "--dashboards", str(tmp_path))
    assert missing.returncode == 2 and "wattribute dashboards export" in missing.stderr
