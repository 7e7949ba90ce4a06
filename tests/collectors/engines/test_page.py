"""The reader of the text format, against prometheus_client's own."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from wattribute.collectors.engines.page import LINE_BYTES, read_page

WANTED = {"a_total", "a_total_sum", "h_sum"}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8)
VALUES = st.floats(0, 1e18, allow_nan=False)
SERIES = st.dictionaries(
    st.tuples(st.sampled_from(["a_total", "other_total"]), st.frozensets(st.tuples(st.sampled_from("xyz"), TEXT))),
    VALUES,
    max_size=5,
)


def escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


@given(SERIES)
def test_what_prometheus_reads_is_read_alike(series: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> None:
    lines = ["# HELP a_total What was.", "# TYPE a_total counter"]
    told = {}
    for (name, labels), value in series.items():
        distinct = dict(sorted(labels))
        inner = ",".join(f'{label}="{escaped(text)}"' for label, text in distinct.items())
        lines.append(f"{name}{{{inner}}} {value!r}" if inner else f"{name} {value!r}")
        told[name, tuple(distinct.items())] = value
    text = "\n".join([*lines, ""])
    theirs = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in WANTED
    }
    page = read_page(text.encode(), WANTED)
    ours = {(name, labels): value for name, found in page.series.items() for labels, value in found.items()}
    assert ours == theirs == {key: value for key, value in told.items() if key[0] in WANTED}
    assert page.skipped == 0
    assert "a_total" in page.declared


@given(st.binary(max_size=200))
def test_any_bytes_are_a_page(body: bytes) -> None:
    read_page(body, WANTED)
    read_page(b"a_total{" + body, WANTED)


def test_forms_of_a_line() -> None:
    body = (
        b'a_total{x="1"} 5 1700000000000\r\n'
        b'a_total{x="2",} 1e3 # {trace_id="ab"} 0.5 1700000000.123\n'
        b'a_total { y = "sp ace" , x="3" } +7\n'
        b'a_total{x="4"}8\n'
        b"a_total 9 1700000000.5\n"
        b'a_total_sum{quantile="0.5"} 3\n'
        b"a_total_created 1.7e9\n"
        b"# EOF\n"
    )
    page = read_page(body, WANTED)
    assert page.series == {
        "a_total": {
            (("x", "1"),): 5,
            (("x", "2"),): 1000,
            (("x", "3"), ("y", "sp ace")): 7,
            (("x", "4"),): 8,
            (): 9,
        },
        "a_total_sum": {(("quantile", "0.5"),): 3},
    }
    assert page.skipped == 0


def test_a_line_that_is_none_is_skipped_and_counted() -> None:
    bad = ["NaN", "+Inf", "-1", "1e19", "0x10", "1_000", "", "5 5 5", "five"]
    lines = [f'a_total{{x="{n}"}} {value}' for n, value in enumerate(bad)]
    lines += ['a_total{x="1" 5', "a_total{x=1} 5", 'a_total{x="1"', "a_total", 'a_total{x="good"} 5', "<html>"]
    page = read_page("\n".join(lines).encode() + b"\xff\xfe\x00", WANTED)
    assert page.series == {"a_total": {(("x", "good"),): 5}}
    assert page.skipped == len(bad) + 4
    assert page.doubtful == {"a_total"}


def test_a_line_without_end_is_skipped() -> None:
    start, end = b'a_total{x="', b'"} 5'
    for length, fits in ((LINE_BYTES, True), (LINE_BYTES + 1, False), (100 * LINE_BYTES, False)):
        page = read_page(start + b"x" * (length - len(start) - len(end)) + end + b"\na_total 7\n", WANTED)
        assert sorted(page.series["a_total"].values()) == ([5, 7] if fits else [7])
        assert page.skipped == (not fits)


def test_a_family_without_a_series_is_declared() -> None:
    page = read_page(b"# TYPE a counter\n# TYPE h histogram\n# TYPE\n# TYPE \n# HELP a_total_sum x\n", WANTED)
    assert page.series == {}
    assert page.declared == {"a_total", "h_sum"}
