"""The rules for Prometheus: they are tested, name what there is, and say in words what is wrong and where to look."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.deploy.promtool import RULES, run
from tests.tools import require

from wattribute.exporters.metrics import METRIC

ROOT = Path(__file__).parents[2]
FILES = sorted(RULES.glob("*.yml"))
TESTS = sorted((RULES.parent / "tests").glob("*.yml"))
DOCUMENTS = [ROOT / "docs" / "prometheus.md", ROOT / "docs" / "fleet.md"]
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*wattribute_[a-zA-Z0-9_:]*|wattribute_[a-zA-Z0-9_:]*")
_FIRING = re.compile(r'alertname="(\w+)",alertstate="firing"')


def rules(kind: str) -> dict[str, Any]:
    """The rules that are records or alerts, by name."""
    groups = (group for file in FILES for group in yaml.safe_load(file.read_text())["groups"])
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def written_tests() -> list[dict[str, Any]]:
    return [test for file in TESTS for test in yaml.safe_load(file.read_text())["tests"]]


RECORDS, ALERTS = rules("record"), rules("alert")


def blocks(path: Path, language: str) -> list[str]:
    """The blocks of code of a document."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def test_promtool_finds_nothing_to_say() -> None:
    config = run("check", "config", str(RULES.parent / "prometheus.yml"))
    assert config.returncode == 0, config.stdout + config.stderr
    assert [file for file in FILES if f"{file.name}\n  SUCCESS" not in config.stdout] == []


def test_the_rules_do_what_their_tests_say() -> None:
    tested = run("test", "rules", *map(str, TESTS))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def vm(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One of VictoriaMetrics' programs, which looks at its configuration and goes."""
    asked = [require(program), "-dryRun", *arguments]
    return subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)


def test_vmalert_takes_the_same_files() -> None:
    said = vm("vmalert", *[f"-rule={file}" for file in FILES])
    assert said.returncode == 0, said.stderr


def test_every_rule_is_tested_and_every_alert_also_where_it_is_silent() -> None:
    said = [sample["labels"] for test in written_tests() for one in test["promql_expr_test"]
            for sample in one.get("exp_samples") or []]  # fmt: skip
    asked = [one["expr"] for test in written_tests() for one in test["promql_expr_test"]]
    tested = {name for text in [*said, *asked] for name in _NAME.findall(text)}
    assert RECORDS.keys() - tested == set()
    fires, silent = set[str](), set[str]()
    for test in written_tests():
        for one in test["promql_expr_test"]:
            for name in _FIRING.findall(one["expr"]):
                (fires if one["exp_samples"] else silent).add(name)
    assert (ALERTS.keys() - fires, ALERTS.keys() - silent) == (set(), set())


def named(expr: str) -> set[str]:
    """Metrics and records that a query names; a histogram's parts as its family."""
    return {re.sub(r"(_bucket|_sum|_count)$", "", name) if ":" not in name else name for name in _NAME.findall(expr)}


def test_no_rule_and_no_documented_query_names_what_there_isnt() -> None:
    exprs = [rule["expr"] for rule in (*RECORDS.values(), *ALERTS.values())]
    exprs += [query for document in DOCUMENTS for query in blocks(document, "promql")]
    for expr in exprs:
        # What counts is a selector's name: a scrape job and a label's value may say wattribute too.
        assert named(re.sub(r'"[^"]*"', '""', expr)) <= METRIC.keys() | RECORDS.keys(), expr
    assert len(exprs) > 90


def test_records_are_named_by_level_metric_and_operations() -> None:
    for name, rule in RECORDS.items():
        level, metric, operations = name.split(":")
        assert not metric.endswith("_total"), name
        assert operations.startswith(("rate5m", "ratio", "sum", "max", "count", "last", "bool")), name
        assert bool(re.search(r"rate\(|rate5m", rule["expr"])) == operations.endswith("rate5m"), name
        assert level.split("_")[0] in {"job", "product", "instance", "fleet"}, name


def test_documented_queries_parse(tmp_path: Path) -> None:
    queries = [query for document in DOCUMENTS for query in blocks(document, "promql")]
    group = {"name": "documented", "rules": [{"record": f"query:{n}", "expr": q} for n, q in enumerate(queries)]}
    file = tmp_path / "queries.json"
    file.write_text(json.dumps({"groups": [group]}))
    checked = run("check", "rules", str(file))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_documented_configuration_is_legal(tmp_path: Path) -> None:
    found = blocks(DOCUMENTS[0], "yaml")
    assert len(found) >= 8
    for number, block in enumerate(found):
        file = tmp_path / f"{number}.yml"
        file.write_text(block)
        if "kubernetes_sd_configs" in block:  # Debian's Prometheus is built without it
            checked = vm("vmagent", f"-promscrape.config={file}", "-remoteWrite.url=http://127.0.0.1:1/")
        else:
            checked = run("check", "config", "--syntax-only", str(file))
        assert checked.returncode == 0, block + checked.stdout + checked.stderr


def test_alerts_name_a_fix_and_where_to_look() -> None:
    sections = re.findall(r"^## (\w+)\n\*(\w+), ([^.]*)\.\*", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert [name for name, _, _ in sections] == sorted(ALERTS, key=[*ALERTS].index)
    for name, severity, lasting in sections:
        rule = ALERTS[name]
        assert rule["labels"] == {"severity": severity}
        number, unit = re.match(r"(\d+)(\w)", rule.get("for", "0m")).groups()  # type: ignore[union-attr]
        assert lasting == (f"{number} {'min' if unit == 'm' else 'h'}" if int(number) else "at once, for an hour")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/alerts.md#{name.lower()}"
        assert 60 < len(rule["annotations"]["description"]) < 280, name


def test_what_alerts_say_is_whole(tmp_path: Path) -> None:
    """promtool shows what fired where nothing was expected: no template fails, and no label in one is missing."""
    asked: list[dict[str, Any]] = []
    for test in written_tests():
        fires = {
            name: {"alertname": name, "eval_time": one["eval_time"], "exp_alerts": []}
            for one in test["promql_expr_test"]
            for name in _FIRING.findall(one["expr"])
            if one["exp_samples"]
        }
        if fires:
            asked.append({**test, "promql_expr_test": [], "alert_rule_test": [*fires.values()]})
    file = tmp_path / "test.json"
    needed = [str(RULES / f"{name}.yml") for name in ("jobs", "nodes", "alerts")]
    file.write_text(json.dumps({"rule_files": needed, "evaluation_interval": "1m", "tests": asked}))
    said = run("test", "rules", str(file)).stderr
    assert set(re.findall(r'Labels:\{alertname="(\w+)"', said)) == ALERTS.keys()
    for words in ("error expanding", "<no value>", "{{", "%!", "NaN"):
        assert words not in said
    assert not re.findall(r'="[^"]*(?: on [.:,]|  | ")', said)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_first_what_it_is(file: Path) -> None:
    assert file.read_text().startswith("# ")
