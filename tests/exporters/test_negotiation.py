"""Which form a client gets, by what real clients send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.exporters.negotiation import Format, accepts_gzip, choose_format

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
VICTORIA_METRICS = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (PROMETHEUS_2, "openmetrics"),
        (PROMETHEUS_3, "openmetrics"),
        (VICTORIA_METRICS, "text"),
        (BROWSER, "text"),
        ("", "text"),
        ("*/*", "text"),
        ("application/openmetrics-text", "openmetrics"),
        ("Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8", "openmetrics"),
        ('application/openmetrics-text; version="1.0.0"', "openmetrics"),
        ("application/openmetrics-text;version=0.0.1", "text"),
        ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", "text"),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.8", "text"),
        ("text/plain;q=0.2,application/openmetrics-text;q=0.8", "openmetrics"),
        ("application/openmetrics-text;q=0", "text"),
        ("application/openmetrics-text;q=nan", "text"),
        ("application/openmetrics-text;q=much,text/plain", "text"),
        ("image/png", "text"),
    ],
)
def test_the_format_that_is_liked_best(accept: str, expected: Format) -> None:
    assert choose_format(accept) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("x-gzip", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("br;q=1.0, zstd", False),
    ],
)
def test_gzip_where_it_is_taken(header: str, expected: bool) -> None:
    assert accepts_gzip(header) is expected


@given(st.text())
def test_no_header_is_too_odd(header: str) -> None:
    assert choose_format(header) in ("text", "openmetrics")
    assert accepts_gzip(header) in (True, False)
