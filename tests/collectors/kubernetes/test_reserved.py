"""Quantities, and what a pod requests as a whole."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.found import NOTHING_RESERVED, Reservation
from wattribute.collectors.kubernetes.reserved import MOST, quantity, reservation


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("2", 2000),
        ("500m", 500),
        ("1.5", 1500),
        ("0.1", 100),
        (".5", 500),
        ("5.", 5000),
        ("+1", 1000),
        ("100n", 1),  # rounded up, as Kubernetes does
        ("1000001u", 1001),
        ("250u", 1),
        ("1k", 1_000_000),
        ("1e3", 1_000_000),
        ("1E3", 1_000_000),
        ("1E-3", 1),
        ("12e-1", 1200),
        ("0", 0),
        ("0.0001m", 1),
        (2, 2000),
        (0.5, 500),
    ],
)
def test_cpus(text: object, milli: int) -> None:
    assert quantity(text, 1000) == milli


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("128974848", 128974848),
        ("129e6", 129_000_000),
        ("1e9", 10**9),
        ("129M", 129_000_000),
        ("123Mi", 128974848),
        ("1Gi", 2**30),
        ("512M", 512_000_000),
        ("1.5Gi", 3 * 2**29),
        ("1Ki", 2**10),
        ("1Ti", 2**40),
        ("1Pi", 2**50),
        ("1Ei", 2**60),
        ("1k", 10**3),
        ("1G", 10**9),
        ("1T", 10**12),
        ("1P", 10**15),
        ("1E", 10**18),
        ("128974848000m", 128974848),
        ("1m", 1),
        ("0.1Ki", 103),
        ("8Ei", MOST),
        ("1e999", MOST),
    ],
)
def test_memory(text: str, size: int) -> None:
    assert quantity(text, 1) == size


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "-1", "1K", "1ki", "1mi", "1 Gi", "Gi", "1Gi3", "1e", "1e1000", "0x10", "1_000", "١", "9" * 41),
        *("1Ee3", None, True, [], {}, float("nan"), float("inf")),
    ],
)
def test_what_is_no_quantity(text: object) -> None:
    assert quantity(text, 1000) is None


@given(st.decimals(min_value=0, max_value=10**9, places=9), st.sampled_from(["", "m", "k", "M", "Ki", "Mi"]))
def test_it_is_exact_to_the_next_part(number: Decimal, suffix: str) -> None:
    scale = Decimal({"": "1", "m": "0.001", "k": "1e3", "M": "1e6", "Ki": "1024", "Mi": "1048576"}[suffix])
    got = quantity(f"{number:f}{suffix}", 1000)
    assert got is not None
    assert 0 <= got - number * scale * 1000 < 1


def asks(cpu: str = "", memory: str = "", **more: object) -> dict[str, object]:
    requests = {name: value for name, value in (("cpu", cpu), ("memory", memory)) if value}
    return {"resources": {"requests": requests}, **more}


def sidecar(cpu: str) -> dict[str, object]:
    return asks(cpu, restartPolicy="Always")


@pytest.mark.parametrize(
    ("spec", "reserved"),
    [
        ({}, NOTHING_RESERVED),
        ({"containers": [{}, {"resources": {}}]}, NOTHING_RESERVED),
        ({"containers": [asks("0", "0")]}, NOTHING_RESERVED),
        ({"containers": [asks("1", "1Gi"), asks("500m")]}, Reservation(1500, 2**30)),
        ({"containers": [asks("1")], "initContainers": [asks("3", "1Gi")]}, Reservation(3000, 2**30)),
        ({"containers": [asks("4")], "initContainers": [asks("3"), asks("2")]}, Reservation(4000)),
        # A sidecar runs beside the containers, and beside what starts after it.
        ({"containers": [asks("1")], "initContainers": [sidecar("200m")]}, Reservation(1200)),
        ({"containers": [asks("1")], "initContainers": [sidecar("200m"), asks("1500m")]}, Reservation(1700)),
        ({"containers": [asks("1")], "initContainers": [asks("1500m"), sidecar("200m")]}, Reservation(1500)),
        ({"containers": [asks("1")], "initContainers": [sidecar("1"), sidecar("2")]}, Reservation(4000)),
        ({"containers": [asks("1")], "overhead": {"cpu": "250m", "memory": "1Ki"}}, Reservation(1250, 1024)),
        ({"containers": [asks("1", "1Ki")], **asks("6")}, Reservation(6000, 1024)),
        ({"containers": [asks("1")], "initContainers": [asks("9")], **asks("6")}, Reservation(6000)),
        ({"containers": [asks("8E")] * 3}, Reservation(MOST)),
        ({"containers": [asks("all")]}, NOTHING_RESERVED),
    ],
)
def test_a_pods_effective_request(spec: dict[str, object], reserved: Reservation) -> None:
    assert reservation(spec) == reserved
