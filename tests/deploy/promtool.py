"""promtool's rule tests, made from pages: what scrapes would have stored, and what queries over it have to give."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.tools import require

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules"
JOB = "wattribute"


def stored(pages: Mapping[str, Sequence[bytes]], *prefixes: str) -> list[dict[str, str]]:
    """The series of scrapes at one interval: by instance, its page at each scrape; those that begin with a prefix."""
    found: list[dict[str, str]] = []
    for instance, scrapes in pages.items():
        columns: dict[str, list[str]] = {}
        for number, page in enumerate(scrapes):
            for line in page.decode().splitlines():
                series, _, value = line.rpartition(" ")
                if series.startswith(prefixes):
                    name, brace, labels = series.partition("{")
                    place = f'{name}{{job="{JOB}",instance="{instance}"{"," if brace else ""}{labels or "}"}'
                    columns.setdefault(place, ["_"] * len(scrapes))[number] = repr(float(value))
        for series, values in columns.items():
            for number in range(1, len(values)):
                if values[number] == "_" and values[number - 1] not in ("_", "stale"):
                    values[number] = "stale"  # as a scrape marks what isn't on the page any more
            found.append({"series": series, "values": " ".join(values)})
    return found


def near(expr: str, value: float, at: str, *, within: float) -> dict[str, Any]:
    """A test that a query gives one number, give or take `within`."""
    asked = f"abs(({expr}) - {value!r}) <= bool {within!r}"
    return {"expr": f"sum({asked})", "eval_time": at, "exp_samples": [{"labels": "{}", "value": 1}]}


def check(
    folder: Path, series: Sequence[Mapping[str, str]], tests: Sequence[Mapping[str, Any]], rules: Sequence[Path]
) -> None:
    """Runs promtool: rules every minute over series scraped every minute; an AssertionError says what differs."""
    test = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    file = folder / "test.json"
    file.write_text(json.dumps({"rule_files": [*map(str, rules)], "evaluation_interval": "1m", "tests": [test]}))
    said = run("test", "rules", str(file))
    assert said.returncode == 0, said.stdout + said.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """promtool, at most 30 s."""
    return subprocess.run([require("promtool"), *arguments], capture_output=True, text=True, timeout=30, check=False)
