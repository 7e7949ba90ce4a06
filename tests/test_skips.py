"""A missing tool is a skip that is counted by name; where every tool is demanded, it is a failure."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

@pytest.mark.skipif(True, reason="missing: promtool")
def test_marked(): pass

def test_called(): pytest.skip("missing: promtool")

def test_other(): pytest.skip("needs a real GPU")

def test_good(): pass
"""


def run(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.skip('missing: gcc', allow_module_level=True)\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    inherited = {name: value for name, value in os.environ.items() if name != "WATTRIBUTE_TEST_REQUIRE"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    return subprocess.run(
        command, cwd=tmp_path, env={**inherited, **env}, capture_output=True, text=True, check=False, timeout=60
    )


def test_skips_are_counted_by_name_in_the_last_line(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "missing tools, and the tests that want them: gcc (1), promtool (2)"


def test_where_tools_are_demanded_such_a_skip_fails(tmp_path: Path) -> None:
    done = run(tmp_path, WATTRIBUTE_TEST_REQUIRE="1")
    assert done.returncode != 0
    for tool in ("promtool", "gcc"):
        assert f"{tool} isn't installed, and WATTRIBUTE_TEST_REQUIRE is set" in done.stdout
