#!/usr/bin/env python3
"""Imports the dashboards into a Grafana of yours and asks it for every panel: pass or fail, one line each.

Needs Python 3.11 and nothing else. `python3 check.py http://localhost:3000`, with a service account's token (role
Editor, and it may query the data source) in GRAFANA_TOKEN, or USER:PASSWORD in GRAFANA_LOGIN.
Exit codes: 0 every panel has what it should, 1 one hasn't, 2 Grafana couldn't be asked.
"""

import argparse
import base64
import json
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("fleet", "node", "job", "product")
LABEL_VALUES = re.compile(r"label_values\((\w+), (\w+)\)")
VARIABLE = re.compile(r"\$([A-Za-z]\w*)")  # Grafana itself replaces what begins with an underscore: $__range


class NoAnswer(Exception):
    """What Grafana said instead of an answer."""


class Grafana:
    """A Grafana's HTTP API."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = url.rstrip("/"), timeout_s
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token := os.environ.get("GRAFANA_TOKEN"):
            self._headers["Authorization"] = f"Bearer {token}"
        elif login := os.environ.get("GRAFANA_LOGIN"):
            self._headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()

    def ask(self, path: str, body: Any = None) -> Any:
        """The JSON that GET, or with a body POST, answers. Raises NoAnswer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            # A query that failed comes with a status of its own, and says why in the body.
            if path == "/api/ds/query" and said.startswith('{"results"'):
                return json.loads(said)
            raise NoAnswer(f"{error.code} {error.reason}: {said}") from error
        except (OSError, ValueError) as error:
            raise NoAnswer(str(error)) from error


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels that ask for something."""
    for panel in dashboard["panels"]:
        yield from (one for one in (panel, *panel.get("panels", ())) if one.get("targets"))


def data_source(grafana: Grafana, wanted: str) -> str:
    """The uid of the Prometheus data source that is called so, or else of the default one. Raises NoAnswer."""
    found = [one for one in grafana.ask("/api/datasources") if one["type"] == "prometheus"]
    chosen = [one for one in found if wanted in (one["uid"], one["name"])] if wanted else found
    if not chosen:
        names = ", ".join(one["name"] for one in found) or "none"
        raise NoAnswer(
            f"no Prometheus data source{f' {wanted!r}' if wanted else ''} (there are: {names}). Fix: add one"
        )
    return str(next((one for one in chosen if one.get("isDefault")), chosen[0])["uid"])


def chosen_values(grafana: Grafana, source: str, dashboard: dict[str, Any], start_s: int, end_s: int) -> dict[str, str]:
    """What each variable stands for: all, or where one must be chosen the first. Raises NoAnswer."""
    values = {}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        found = LABEL_VALUES.fullmatch(variable["query"]["query"])
        if found is None:
            raise NoAnswer(f"variable {variable['name']} has an unknown query")
        asked = urllib.parse.urlencode({"match[]": found[1], "start": start_s, "end": end_s})
        answer = grafana.ask(f"/api/datasources/uid/{source}/resources/api/v1/label/{found[2]}/values?{asked}")
        if not answer["data"]:
            raise NoAnswer(f"variable {variable['name']} is empty: no {found[1]} in the data source")
        values[variable["name"]] = variable.get("allValue") or escaped(answer["data"][0])
    return values


def escaped(value: str) -> str:
    """A label's value as a regular expression within a PromQL string, which is what Grafana makes of a choice."""
    return re.escape(value).replace("\\", "\\\\").replace('"', '\\"')


def verdict(
    grafana: Grafana, source: str, panel: dict[str, Any], values: dict[str, str], times: tuple[int, int]
) -> str:
    """What is wrong with a panel's data; "" if nothing is."""
    queries = [
        {
            **target,
            "expr": VARIABLE.sub(lambda name: values.get(name[1], name[0]), target["expr"]),
            "datasource": {"type": "prometheus", "uid": source},
            "intervalMs": 60_000,
            "maxDataPoints": 500,
        }
        for target in panel["targets"]
    ]
    body = {"from": str(times[0] * 1000), "to": str(times[1] * 1000), "queries": queries}
    try:
        results = grafana.ask("/api/ds/query", body)["results"]
    except NoAnswer as error:
        return str(error)
    errors = [f"{name}: {result['error']}" for name, result in results.items() if result.get("error")]
    if errors:
        return "; ".join(errors)
    frames = [frame for result in results.values() for frame in result.get("frames", ())]
    if any(any(column for column in frame["data"]["values"]) for frame in frames):
        return ""
    return "" if "noValue" in panel["fieldConfig"]["defaults"] else "no data"


def check(grafana: Grafana, folder: Path, wanted: str, hours: float) -> bool:
    """Whether every panel of every dashboard has what it should; prints one line each. Raises NoAnswer, OSError."""
    version = grafana.ask("/api/health").get("version", "of no known version")
    source = data_source(grafana, wanted)
    print(f"Grafana {version}, data source {source}")
    end_s = int(time.time())
    times = end_s - int(hours * 3600), end_s
    failed = passed = 0
    for name in NAMES:
        dashboard = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        grafana.ask("/api/dashboards/db", {"dashboard": dashboard, "overwrite": True, "message": "wattribute check"})
        stored = grafana.ask(f"/api/dashboards/uid/{dashboard['uid']}")["dashboard"]
        here, there = ([panel["title"] for panel in panels(one)] for one in (dashboard, stored))
        problems = {"import": "" if here == there else "Grafana stored other panels than were sent"}
        try:
            values = chosen_values(grafana, source, dashboard, *times)
        except NoAnswer as error:
            problems["variables"] = str(error)
        else:
            problems |= {panel["title"]: verdict(grafana, source, panel, values, times) for panel in panels(dashboard)}
        for what, problem in problems.items():
            print(f"{'FAIL' if problem else 'pass'}  {name}: {what}{f' ({problem})' if problem else ''}")
            failed, passed = failed + bool(problem), passed + (not problem)
    print(f"{passed} passed, {failed} failed")
    return not failed


def main() -> int:
    """Exit code of the whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of Grafana, e.g. http://localhost:3000")
    parser.add_argument("--dashboards", type=Path, default=Path(__file__).parent, metavar="DIR", help="the JSON files")
    parser.add_argument("--datasource", default="", metavar="NAME", help="name or uid of the Prometheus data source")
    parser.add_argument("--hours", type=float, default=6, help="how far back to ask [6]")
    parser.add_argument("--timeout", type=float, default=60, metavar="S", help="of one request [60]")
    words = parser.parse_args()
    try:
        return 0 if check(Grafana(words.url, words.timeout), words.dashboards, words.datasource, words.hours) else 1
    except NoAnswer as error:
        print(f"Grafana at {words.url} gave no answer: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{error}. Fix: --dashboards DIR, written by: wattribute dashboards export DIR", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
