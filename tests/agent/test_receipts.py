"""Receipts: shown, copied, added up, and left on disk."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute import Receipt
from wattribute.agent.parts import merge
from wattribute.agent.receipts import SUMS, TERMS, blank
from wattribute.agent.stored import ReceiptFiles, stored, write_atomic


def part(**known: Any) -> dict[str, Any]:
    return blank(
        known.pop("job_id", "bert-ft-7"),
        **{
            "product_id": "bert-base",
            "uses": ["iks-dallas"],
            "phase": "training",
            "node": "n1",
            "started_at": "2026-07-31T10:00:00Z",
            "ended_at": "2026-07-31T10:00:10Z",
            "duration_s": 10.0,
            "cpu_s": 20.0,
            "gpu_sm_s": 0.0,
            "energy_uj": 1_230_000,
            "energy_j": {"cpu": {"direct": 1.0, "idle": 0.2, "overhead": 0.03}, "gpu": None},
            "quality": {"measured": 0.0, "integrated": 0.0, "modelled": 1.0},
            "method": {"cpu": "modelled"},
            "boundary": {"included": ["cpu"], "missing": ["psu", "nic"]},
            "pue": 1.2,
            "intensity": {"gco2e_per_kwh": 480.0, "quality": "default"},
            "gco2e": {name: n / 1e9 for n, name in enumerate((*TERMS, *SUMS))},
            "taxes": [{"product_id": "iks-dallas", "term": "platform", "gco2e": 0.5}],
            "bounds": {"jsce": [0.1, 0.3], "asce": None},
            "settled": True,
            "revision": 1,
            "notes": ["no RAPL here: cpu is modelled"],
            **known,
        },
    )


def test_a_receipt_is_a_value() -> None:
    receipt = Receipt(part())
    assert receipt == Receipt(part())
    assert hash(receipt) == hash(Receipt(part()))
    assert receipt != Receipt(part(energy_uj=0))
    receipt.to_dict()["notes"].append("not mine")
    receipt.energy_j["cpu"] = None
    assert receipt == Receipt(part())
    with pytest.raises(AttributeError):
        receipt.energy_uj = 3  # type: ignore[misc]


def test_what_is_asked_for_most_has_a_name() -> None:
    receipt = Receipt(part())
    assert (receipt.job_id, receipt.energy_uj, receipt.basis, receipt.settled) == (
        "bert-ft-7",
        1_230_000,
        "in-process",
        True,
    )
    assert (receipt.jsc_gco2e, receipt.jsce_gco2e, receipt.asc_gco2e, receipt.asce_gco2e) == (7e-9, 8e-9, 9e-9, 1e-8)
    assert receipt.terms["cooling"] == 1e-9
    assert receipt.quality["modelled"] == 1.0
    assert receipt.energy_j == {"cpu": {"direct": 1.0, "idle": 0.2, "overhead": 0.03}, "gpu": None}
    assert receipt.to_dict() == part()


def test_in_a_terminal_it_is_a_short_aligned_table() -> None:
    lines = str(Receipt(part())).splitlines()
    assert 8 <= len(lines) <= 15
    assert lines[0] == "wattribute receipt: bert-ft-7"
    assert "  product  bert-base (uses iks-dallas), role use, phase training" in lines
    assert "  energy   1.23 J  (cpu direct 1 J + idle 200 mJ + overhead 30 mJ)" in lines
    assert "  quality  100% modelled; without psu, nic" in lines
    assert "  bounds   JSC^e 100 mgCO2e to 300 mgCO2e, ASC^e open above: an EPC is missing" in lines
    assert "  note     no RAPL here: cpu is modelled" in lines
    assert "480 gCO2e/kWh (default), PUE 1.2; measured by: in-process" in lines[-2]
    assert len(str(Receipt(part(notes=[f"note {n}" for n in range(50)]))).splitlines()) <= 15


def test_what_isnt_known_is_said_and_never_a_zero() -> None:
    receipt = Receipt(blank("a"))
    assert receipt.energy_uj is None
    assert receipt.asce_gco2e is None
    assert "energy   unknown" in str(receipt)
    assert "0 J" not in str(receipt)


def test_in_a_notebook_names_are_text() -> None:
    page = Receipt(part(job_id="<script>", notes=["<b>"]))._repr_html_()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "&lt;b&gt;" in page


def test_parts_of_one_id_add_up() -> None:
    later = part(
        started_at="2026-07-31T10:00:05Z",
        ended_at="2026-07-31T10:00:15Z",
        energy_uj=3_000_000,
        energy_j={"cpu": {"direct": 3.0}},
        quality={"measured": 1.0, "integrated": 0.0, "modelled": 0.0},
        basis="daemon",
        pue=1.0,
        notes=["no RAPL here: cpu is modelled", "another"],
    )
    both = merge([later, part()])
    assert both["energy_uj"] == 4_230_000
    assert both["energy_j"] == {"cpu": {"direct": 4.0, "idle": 0.2, "overhead": 0.03}, "gpu": None}
    assert both["duration_s"] == 15.0  # the overlap counts once
    assert (both["started_at"], both["ended_at"]) == ("2026-07-31T10:00:00Z", "2026-07-31T10:00:15Z")
    assert (both["members"], both["cpu_s"], both["basis"], both["pue"]) == (2, 40.0, "mixed", None)
    assert both["quality"] == {
        "measured": pytest.approx(3 / 4.23),
        "integrated": 0.0,
        "modelled": pytest.approx(0.290780142),
    }
    assert both["taxes"] == [{"product_id": "iks-dallas", "term": "platform", "gco2e": 1.0}]
    assert both["bounds"] == {"jsce": [0.2, 0.6], "asce": None}
    assert both["gco2e"]["cooling"] == 2e-9
    assert both["notes"][:2] == ["no RAPL here: cpu is modelled", "another"]
    assert set(both) == set(part())
    str(Receipt(both))


def test_a_running_or_unknown_part_leaves_the_whole_open() -> None:
    both = merge([part(), part(ended_at=None, energy_uj=None, gco2e=dict.fromkeys((*TERMS, *SUMS)), settled=False)])
    assert both["ended_at"] is None
    assert both["settled"] is False
    assert both["energy_uj"] == 1_230_000
    assert both["gco2e"]["asce"] is None
    assert merge([part(duration_s=None), part()])["duration_s"] is None
    assert merge([part(product_id="other"), part()])["notes"][-2].endswith("other products: other")


def test_one_part_is_itself_and_two_jobs_are_none() -> None:
    assert merge([part()]) == part()
    for parts in ([], [part(), part(job_id="b")]):
        with pytest.raises(ValueError, match="exactly one job"):
            merge(parts)


@given(st.lists(st.tuples(st.integers(0, 10**15), st.integers(0, 10**12)), min_size=1, max_size=8))
def test_sums_are_exact_in_any_order(amounts: list[tuple[int, int]]) -> None:
    parts = [part(energy_uj=uj, gco2e=dict.fromkeys((*TERMS, *SUMS), ng / 1e9)) for uj, ng in amounts]
    for order in (parts, parts[::-1]):
        assert merge(order)["energy_uj"] == sum(uj for uj, _ in amounts)
        assert merge(order)["gco2e"]["jsc"] == pytest.approx(sum(ng for _, ng in amounts) / 1e9, abs=1e-9)


def test_processes_leave_one_file_each_and_never_by_the_jobs_name(tmp_path: Path) -> None:
    for process in ("boot/1-1", "boot/2-1"):
        files = ReceiptFiles(tmp_path, process)
        assert files.save(part(job_id="../../etc/passwd", energy_uj=1))
        assert files.save(part(job_id="../../etc/passwd", energy_uj=2))
        assert files.save(part(job_id="../../etc/passwd", energy_uj=3, started_at="2026-08-01T10:00:00Z"))
    names = os.listdir(tmp_path / "receipts")
    assert len(names) == 4
    assert all(name.removesuffix(".json").isalnum() for name in names)
    assert {(tmp_path / "receipts" / name).stat().st_mode & 0o777 for name in names} == {0o600}
    parts = stored([tmp_path, tmp_path, tmp_path / "none"])
    assert sorted(part["energy_uj"] for part in parts) == [2, 2, 3, 3]


def test_what_isnt_a_receipt_is_passed_over(tmp_path: Path) -> None:
    ReceiptFiles(tmp_path, "p").save(part())
    folder = tmp_path / "receipts"
    (folder / "half.json").write_text('{"schema": "wattribute.rec')
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "other.json").write_text('{"schema": "other/1", "job_id": "a"}')
    (folder / "list.json").write_text("[1]")
    (folder / "bytes.json").write_bytes(b"\xff\xfe")
    (folder / "link.json").symlink_to(folder / "other.json")
    (folder / "gone.json").symlink_to(folder / "nowhere")
    assert len(list(stored([tmp_path]))) == 1


def test_where_nothing_can_be_written_it_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    files = ReceiptFiles(tmp_path / "file", "p")
    assert not files.save(part())
    assert not files.save(part())
    assert not ReceiptFiles(None, "p").save(part())
    assert len(caplog.records) == 2
    assert "WATTRIBUTE_AGENT__STATE_DIR" in caplog.records[0].getMessage()


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "r.json"
    write_atomic(target, "old", 0o600)
    with pytest.raises(UnicodeEncodeError):
        write_atomic(target, "\udc80", 0o600)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["r.json"]
    write_atomic(target, json.dumps({}), 0o640)
    assert target.read_text() == "{}"
