"""Programs that some tests need and a machine may lack."""

import os
import shutil

import pytest


def require(name: str) -> str:
    """The path of a program; without it the test is skipped as `missing: NAME`.

    With WATTRIBUTE_TEST_REQUIRE set it fails: where the tests are judged, every tool is installed.
    """
    path = shutil.which(name)
    if path is not None:
        return path
    if os.environ.get("WATTRIBUTE_TEST_REQUIRE"):
        pytest.fail(f"missing: {name}, and WATTRIBUTE_TEST_REQUIRE is set")
    pytest.skip(f"missing: {name}")
