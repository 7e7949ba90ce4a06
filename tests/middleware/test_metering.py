"""Whose requests a middleware with a meter of its own counts."""

import os
from pathlib import Path

import pytest

from wattribute.agent.config.load import load
from wattribute.agent.middleware.metering import Metering


@pytest.mark.parametrize(
    ("given", "environment", "job_id"),
    [("llama", "other", "serve-llama"), (None, "llama", "serve-llama"), (None, "", "serve-default")],
)
def test_the_product_is_the_arguments_or_the_environments(
    monkeypatch: pytest.MonkeyPatch, given: str | None, environment: str, job_id: str
) -> None:
    monkeypatch.setenv("WATTRIBUTE_PRODUCT_ID", environment)
    metering = Metering(given, "k8s-prod", None, receipts=False)
    meter = metering._opened()
    assert meter is metering._opened()
    assert meter.job.id == job_id
    load(None, os.environ, {}, system_file=Path("/nonexistent"))
    metering.stop()
    assert "stopped" in repr(meter)
