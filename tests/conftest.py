"""Skips for a missing tool are counted by name in the last line; under WATTRIBUTE_TEST_REQUIRE they fail instead."""

import os
import tempfile
from collections import Counter
from collections.abc import Generator

import pytest
from hypothesis import settings

from wattribute.agent.client import Client

# The same examples everywhere: a search for new ones is a run of its own, `pytest --hypothesis-profile default`.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")

MISSING = "missing: "


def pytest_configure(config: pytest.Config) -> None:
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
    """The tool whose absence skipped this, or "" (a skip's longrepr is file, line, reason; in either form)."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith(MISSING):
            return reason.removeprefix(MISSING)
    return ""


def _require(report: pytest.TestReport | pytest.CollectReport) -> None:
    tool = _missing_tool(report)
    if tool and os.environ.get("WATTRIBUTE_TEST_REQUIRE"):
        report.outcome = "failed"
        report.longrepr = f"{tool} isn't installed, and WATTRIBUTE_TEST_REQUIRE is set: .ci/run installs it"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _require(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _require(report)
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # one of several workers
        return
    counted = Counter(filter(None, map(_missing_tool, reporter.stats.get("skipped", []))))
    if counted:
        tests_by_tool = ", ".join(f"{tool} ({count})" for tool, count in sorted(counted.items()))
        reporter.write_line(f"missing tools, and the tests that want them: {tests_by_tool}", yellow=True)
