"""Skips for a missing tool are counted by name in the last line; under WATTRIBUTE_TEST_REQUIRE they fail instead."""

import os
import tempfile
from collections import Counter
from collections.abc import Generator

import pytest
from hypothesis import settings

from wattribute.agent.client import Client

# The same examples everywhere: a search for new ones is a run of its own, `pytest --hypothesis-profile default`.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

MISSING = "missing: "
_missing_tools = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_missing_tools] = Counter()
    for name in list(os.environ):
        if name.startswith(("WATTRIBUTE_", "SLURM_", "TORCHELASTIC_")) and not name.startswith("WATTRIBUTE_TEST_"):
            del os.environ[name]  # what this shell says of agents and jobs isn't the tests'
    # Nor are the receipts that this user's own jobs have left.
    own = tempfile.TemporaryDirectory(prefix="wattribute-tests-")
    config.add_cleanup(own.cleanup)
    os.environ["XDG_STATE_HOME"] = own.name
    client = Client.find(os.environ)
    if client is not None:
        client.close()
        pytest.exit("an agent runs on this machine, and tests of what happens without one would find it: stop it", 2)


def _missing_tool(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The tool whose absence skipped this, or "" (a skip's longrepr is file, line, reason)."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith(MISSING):
            return reason.removeprefix(MISSING)
    return ""


def _count(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    tool = _missing_tool(report)
    if not tool:
        return
    config.stash[_missing_tools][tool] += 1
    if os.environ.get("WATTRIBUTE_TEST_REQUIRE"):
        report.outcome = "failed"
        report.longrepr = f"{tool} isn't installed, and WATTRIBUTE_TEST_REQUIRE is set: .ci/run installs it"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _count(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _count(report, collector.config)
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    counted = config.stash[_missing_tools]
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if counted and reporter is not None:
        tests_by_tool = ", ".join(f"{tool} ({count})" for tool, count in sorted(counted.items()))
        reporter.write_line(f"missing tools, and the tests that want them: {tests_by_tool}", yellow=True)
