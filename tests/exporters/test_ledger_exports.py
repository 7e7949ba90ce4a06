"""Exports of the ledger: what is written is what is read, in three formats; nothing that a spreadsheet carries out."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.schema import CHAINS, ROWS
from wattribute.exporters import ledger_csv, ledger_jsonl, ledger_parquet
from wattribute.exporters.ledger_rows import STORED, About, Export, Head, Row, columns, flat

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
FORMULAS = st.sampled_from(
    ["=1+1", "+1", "-1", "@SUM(A1)", "'=x", "''-x", "'plain", "\t=x", "\r\n", 'a"b,c\nd', "é;\u2028"]
)


@st.composite
def exports(draw: st.DrawFn) -> tuple[About, list[Row]]:
    table = draw(st.sampled_from(CHAINS))
    kinds = {"text": TEXT | FORMULAS, "integer": INT64, "maybe": st.none() | INT64}
    record = st.sampled_from(["row", "known", "refused"])
    values = st.tuples(*(kinds[column.kind] for column in STORED[table]))
    rows = draw(st.lists(st.builds(Row, record, st.integers(1, 9), st.integers(1, 1 << 40), values, TEXT), max_size=5))
    heads = st.builds(
        Head, chain=st.integers(5, 9), node_id=TEXT | FORMULAS, rows=st.integers(0, 1 << 40), hash=TEXT,
        parent=st.none() | st.integers(1, 4), forked_after=st.integers(0, 9),
    )  # fmt: skip
    about = About(
        table=table, schema=2, heads=draw(st.lists(heads, min_size=1, max_size=3)), partial=draw(st.booleans())
    )
    return about, rows


def write(form: str, path: Path, about: About, rows: list[Row]) -> Export:
    if form == "parquet":
        ledger_parquet.write(str(path), about, rows)
        return ledger_parquet.read(str(path))
    with open(path, "w", encoding="utf-8", newline="") as out:
        (ledger_csv if form == "csv" else ledger_jsonl).write(out, about, rows)
    export: Export = (ledger_csv if form == "csv" else ledger_jsonl).read(str(path))
    return export


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(export=exports())
def test_what_is_written_is_read(form: str, tmp_path: Path, export: tuple[About, list[Row]]) -> None:
    about, rows = export
    read = write(form, tmp_path / "export", about, rows)
    assert read.about == about
    assert list(read.rows()) == rows
    assert list(read.rows()) == rows, "from the start again"


@given(TEXT | FORMULAS)
@example("")
def test_a_guarded_text_is_no_formula_and_comes_back(text: str) -> None:
    guarded = ledger_csv.guarded(text)
    assert guarded[:1] not in tuple("=+-@\t\r\n")
    assert ledger_csv.unguarded(guarded) == text


def test_the_columns_are_those_of_the_ledger() -> None:
    assert {table: tuple(column.name for column in STORED[table]) for table in CHAINS} == {
        table: row._fields for table, row in ROWS.items()
    }
    for table in CHAINS:
        names = [column.name for column in columns(table)]
        assert len(set(names)) == len(names)
        assert all(column.says for column in columns(table))


def window(job: str = "a", domain: str = "cpu", content: str = '{"direct.measured":3}', prices: str = "") -> Row:
    return Row("row", 1, 1, ("n", "e/1", 10**18, job, domain, 10**18 + 5 * 10**9, content, prices), "00" * 32)


ONE = About(table="windows", schema=2, heads=[Head(chain=1, node_id="n", rows=1, hash="00" * 32)])


@pytest.mark.parametrize(
    ("row", "energy_uj", "co2e_ng", "product_id"),
    [
        (window(content='{"direct.measured":3,"idle.modelled":4}'), 7, 0, ""),
        (window(domain="", content='{"operation":5,"platform":2,"tax.platform.iks":2,"cpu_ns":9}'), 0, 7, ""),
        (window(domain="", content="{}", prices='{"product_id":"bert","role":"use"}'), 0, 0, "bert"),
        (window("_node", content='{"node.measured":9,"unattributed.idle":2}'), 9, 0, ""),
        (window("_node", domain="", content='{"operation":5,"unattributed.idle.operation":2}'), 0, 5, ""),
        (window(content="not JSON", prices="[1]"), 0, 0, ""),
    ],
)
def test_what_follows_from_a_row(row: Row, energy_uj: int, co2e_ng: int, product_id: str) -> None:
    named = dict(zip([column.name for column in columns("windows")], flat("windows", row), strict=True))
    assert (named["energy_uj"], named["co2e_ng"], named["product_id"]) == (energy_uj, co2e_ng, product_id)
    assert (named["start"], named["end"]) == ("2001-09-09T01:46:40.000000Z", "2001-09-09T01:46:45.000000Z")


def test_a_csv_reads_like_any_other(tmp_path: Path) -> None:
    write("csv", tmp_path / "x.csv", ONE, [window("=cmd|' /C calc'!A0")])
    raw = (tmp_path / "x.csv").read_bytes()
    assert raw.count(b"\r\n") == 3
    with open(tmp_path / "x.csv", newline="") as file:
        head, row = csv.DictReader(file)
    assert (head["record"], head["position"], json.loads(head["about"])["schema"]) == ("head", "1", 2)
    assert (row["record"], row["job_id"], row["energy_uj"]) == ("row", "'=cmd|' /C calc'!A0", "3")


def test_parquet_says_what_its_columns_are(tmp_path: Path) -> None:
    from pyarrow import parquet  # type: ignore[import-untyped,unused-ignore]

    write("parquet", tmp_path / "x.parquet", ONE, [window()] * 3)
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.num_rows == 3
    assert str(table.schema.field("window_start_unix_ns").type) == "int64"
    assert b"microjoules" in table.schema.field("energy_uj").metadata[b"description"]


def spoilt(edit: Callable[[str], str]) -> Callable[[Path], None]:
    def carry_out(path: Path) -> None:
        with open(path, newline="", encoding="utf-8") as file:
            text = file.read()
        path.write_bytes(edit(text).encode())

    return carry_out


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t.replace("1000000005000000000", "1.00E+18"),
         r"line 3, column window_end_unix_ns: '1.00E\+18' isn't an integer \(a spreadsheet"),
        (lambda t: t.replace(",n,e/1,", ",n,e/1,x,"), "line 3: 20 fields, and the header has 19"),
        (lambda t: t.replace("window_end_unix_ns", "until"), "line 3, column window_end_unix_ns: nothing isn't"),
        (lambda t: t.replace(",", ";"), "doesn't begin with what it is of"),
        (lambda t: t.partition("\r\n")[0], "doesn't begin with what it is of"),
        (lambda t: "", "doesn't begin with what it is of"),
        (lambda t: t + '"open', "line 4: unexpected end of data"),
        (lambda t: t.replace('""format"":1', '""format"":2'), "newer wattribute"),
        (lambda t: t.replace('""windows""', '""doors""'), "holds 'doors'"),
        (lambda t: t.replace("head,1,1", "head,1,one"), "line 2, column position: 'one' isn't an integer"),
    ],
)  # fmt: skip
def test_a_spoilt_csv_is_told_by_line_and_column(tmp_path: Path, edit: Callable[[str], str], says: str) -> None:
    path = tmp_path / "x.csv"
    write("csv", path, ONE, [window()])
    spoilt(edit)(path)
    with pytest.raises(LedgerError, match=says):
        list(ledger_csv.read(str(path)).rows())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 3: not JSON"),
        ("[]", "line 3: not a JSON object"),
        ('{"record":"row"}', "line 3, column chain: nothing isn't an integer"),
        ('{"record":"row","chain":true}', "line 3, column chain: True isn't an integer"),
        ('{"record":7}', "line 3, column record: 7 isn't a text"),
    ],
)
def test_a_spoilt_line_is_told(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "x.jsonl"
    write("jsonl", path, ONE, [window()])
    path.write_text(path.read_text() + line)
    with pytest.raises(LedgerError, match=says):
        list(ledger_jsonl.read(str(path)).rows())


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"", b"\xff\xfe\0"])
@pytest.mark.parametrize("read", [ledger_csv.read, ledger_jsonl.read, ledger_parquet.read])
def test_what_is_no_export_is_refused(tmp_path: Path, read: Callable[[str], Any], content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(LedgerError):
        read(str(tmp_path / "x"))
    with pytest.raises(LedgerError):
        read(str(tmp_path / "absent"))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LedgerError, match=r"pip install 'wattribute\[parquet\]'"):
        ledger_parquet.write(str(tmp_path / "x"), ONE, [])
