"""Whose requests a middleware with a meter of its own counts."""

import os
from pathlib import Path
from typing import Any

import pytest

from wattribute.agent.config.load import load
from wattribute.agent.middleware.metering import UNMETERED, Metering


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


@pytest.mark.parametrize("wrong", [{"product": 5}, {"product": object()}, {"meter": "llama"}])
def test_what_is_no_product_and_no_meter_is_an_error_where_it_stands(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Metering(**{"product": None, "uses": (), "meter": None, **wrong}, receipts=False)


def test_what_stands_in_for_a_request_takes_what_a_request_takes() -> None:
    UNMETERED.add({"token": 1}, image=2)
    UNMETERED.end({"token": 1}, aborted=True)
    assert (UNMETERED.id, UNMETERED.tenant, UNMETERED.receipt) == ("", "", None)
