"""Receipts that processes without an agent left, in the archive: once, exact, and only when they are over."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.archive import Archive, imports, open_archive
from wattribute.agent.archive.receipt_amounts import part_of
from wattribute.agent.config.schema import Agent, Config
from wattribute.agent.core.model import DOMAIN_KINDS, QUALITIES, SHARE_KINDS, TERMS
from wattribute.agent.core.records import JobRecord
from wattribute.agent.core.units import g_of, j_of
from wattribute.agent.receipts import blank
from wattribute.agent.stored import QUIET_NS, ReceiptFiles

S = 1_000_000_000
START = 1_780_000_000 * S  # 2026-05-28T20:26:40Z
MODELLED = {"measured": 0.0, "integrated": 0.0, "modelled": 1.0}


def receipt(job_id: str = "j", **changed: Any) -> dict[str, Any]:
    """A receipt as a process writes it at its job's end."""
    told: dict[str, Any] = {
        "product_id": "m", "role": "creation", "node": "n1", "settled": True, "revision": 1,
        "started_at": "2026-05-28T20:26:40.000000Z", "ended_at": "2026-05-28T20:26:50.000000Z",
        "duration_s": 10.0, "cpu_s": 0.007544646, "energy_uj": 42_911, "quality": MODELLED,
        "energy_j": {"cpu": {"direct": 0.025321, "idle": 0.002782, "overhead": 0.001641},
                     "dram": {"direct": 0.0, "idle": 0.013167, "overhead": 0.0}, "gpu": None},
        "gco2e": {**dict.fromkeys(TERMS, 0.0), "operation": 5.721e-06, "hardware": 2.5043e-05, "product": 3e-9},
        "taxes": [{"product_id": "a.b", "term": "product", "gco2e": 2e-9},
                  {"product_id": "m", "term": "product", "gco2e": 1e-9}],
        "intensity": {"gco2e_per_kwh": 480.0, "grid_zone": "FR", "quality": "default"},
    }  # fmt: skip
    return blank(job_id, **{**told, **changed})


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The agent's state directory; the user's own is home/wattribute beside it."""
    return tmp_path / "state"


def archive_of(state: Path) -> Archive:
    return open_archive(Config(agent=Agent(state_dir=str(state))))


@pytest.fixture
def archive(state: Path) -> Iterator[Archive]:
    with open_archive(Config(agent=Agent(state_dir=str(state))), pull=False) as opened:
        yield opened


def leave(state: Path, told: dict[str, Any], *, process: str = "1", quiet_ns: int = 0) -> Path:
    """Write a receipt as if `quiet_ns` ago; each is newer than the one before it."""
    folder = state / "receipts"
    before = set(folder.glob("*.json")) if folder.is_dir() else set()
    assert ReceiptFiles(state, process).save(told)
    (path,) = set(folder.glob("*.json")) - before or {max(before, key=lambda one: one.stat().st_mtime_ns)}
    if quiet_ns:
        then = time.time_ns() - quiet_ns
        os.utime(path, ns=(then, then))
    return path


def job(state: Path, job_id: str = "j") -> JobRecord:
    with archive_of(state) as archive:
        found = archive.job(job_id)
        assert archive.verify() == []
    assert found is not None
    return found


def test_a_receipt_becomes_a_job_to_the_microjoule_and_the_nanogram(state: Path) -> None:
    leave(state, receipt(uses=["a.b"], phase="training", expected_nodes=2))
    found = job(state)
    assert found == JobRecord(
        id="j", product_id="m", uses=("a.b",), role="creation", phase="training", nodes=("n1",), expected_nodes=2,
        started_unix_ns=START, ended_unix_ns=START + 10 * S, cpu_ns=7_544_646, source="in-process",
        energy_uj={("cpu", "direct", "modelled"): 25_321, ("cpu", "idle", "modelled"): 2_782,
                   ("cpu", "overhead", "modelled"): 1_641, ("dram", "idle", "modelled"): 13_167},
        terms_ng={"operation": 5_721, "hardware": 25_043, "product": 3},
        taxes_ng={("a.b", "product"): 2, ("m", "product"): 1},
    )  # fmt: skip


def test_it_comes_in_once_however_often_and_by_whom_it_is_read(state: Path, tmp_path: Path) -> None:
    path = leave(state, receipt())
    leave(tmp_path / "home" / "wattribute", receipt("own"))
    first = job(state)
    os.utime(path)  # touched, and the same
    assert job(state) == first
    assert job(state, "own").energy_uj == first.energy_uj
    with archive_of(state) as archive:
        (strand,) = archive.strands("windows")
        assert (strand.node_id, strand.rows) == ("in-process-n1", 6)
        assert len(list(archive.jobs())) == 2


def test_a_running_job_waits_for_its_end(state: Path) -> None:
    running = receipt(ended_at=None, settled=False, energy_uj=30_000, duration_s=5.0)
    leave(state, running)
    leave(state, receipt(), process="2")  # another part of the job is over: the job isn't
    with archive_of(state) as archive:
        assert archive.job("j") is None
    leave(state, receipt())
    assert sum(job(state).energy_uj.values()) == 2 * 42_911


def test_of_a_process_that_is_gone_what_it_wrote_last_counts(state: Path) -> None:
    leave(state, receipt(ended_at=None, settled=False, duration_s=5.5), quiet_ns=QUIET_NS + S)
    found = job(state)
    assert found.ended_unix_ns == START + 5 * S + S // 2
    assert sum(found.energy_uj.values()) == 42_911


def test_one_that_was_taken_for_gone_adds_what_it_has_used_since(state: Path) -> None:
    early = receipt(
        ended_at=None, settled=False, duration_s=5.0, energy_uj=29_744, cpu_s=0.001,
        energy_j={"cpu": receipt()["energy_j"]["cpu"]}, gco2e={**receipt()["gco2e"], "operation": 4e-6},
    )  # fmt: skip
    leave(state, early, quiet_ns=QUIET_NS + S)
    assert job(state).terms_ng["operation"] == 4_000
    leave(state, receipt())
    found = job(state)
    assert (sum(found.energy_uj.values()), found.terms_ng["operation"], found.cpu_ns) == (42_911, 5_721, 7_544_646)
    assert found.ended_unix_ns == START + 10 * S
    with archive_of(state) as archive:
        assert sum(sum(one.energy_uj.values()) for one in archive.jobs(from_unix_ns=START + 5 * S)) == 13_167


def test_a_job_that_goes_on_after_its_end_is_its_latest_figures(state: Path) -> None:
    leave(state, receipt())
    job(state)
    later = receipt(
        ended_at="2026-05-28T20:27:50Z", energy_uj=52_911,
        energy_j={"cpu": {"direct": 0.052911}}, quality={**MODELLED, "measured": 1.0, "modelled": 0.0},
    )  # fmt: skip
    leave(state, later)
    found = job(state)
    assert {key: uj for key, uj in found.energy_uj.items() if uj} == {("cpu", "direct", "measured"): 52_911}
    assert found.ended_unix_ns == START + 70 * S


def test_parts_of_several_processes_add_up_and_begin_with_the_first(state: Path) -> None:
    leave(state, receipt(started_at="2026-05-28T20:26:45Z"), process="2")
    leave(state, receipt(), process="1")
    found = job(state)
    assert sum(found.energy_uj.values()) == 2 * 42_911
    assert (found.started_unix_ns, found.nodes, found.weight_ppm) == (START, ("n1",), 1_000_000)


def test_energy_that_nobody_measured_is_an_absence(state: Path) -> None:
    leave(state, receipt(energy_uj=None, energy_j={}, quality=dict.fromkeys(QUALITIES, 0.0)))
    found = job(state)
    assert (found.energy_uj, found.terms_ng["hardware"]) == ({}, 25_043)
    assert "nobody measured" in _notes(state)


@pytest.mark.parametrize(
    ("energy_uj", "kept"),
    [
        (50_000, {"cpu": 29_744, "dram": 13_167, "rest": 7_089}),
        (21_455, {"cpu": 14_872, "dram": 6_583}),
    ],
)
def test_where_the_parts_dont_add_up_the_energy_is_the_truth(state: Path, energy_uj: int, kept: dict[str, int]) -> None:
    leave(state, receipt(energy_uj=energy_uj))
    found = job(state)
    by_domain: dict[str, int] = {}
    for (domain, _, quality), uj in found.energy_uj.items():
        assert quality == "modelled"
        by_domain[domain] = by_domain.get(domain, 0) + uj
    assert by_domain == kept
    assert f"its energy {energy_uj} uJ" in _notes(state)


@pytest.mark.parametrize(
    ("parts", "ratios", "qualities"),
    [
        ({"cpu": 3.0, "gpu": 1.0}, (1.0, 0.0, 0.0), {"cpu": "measured", "gpu": "measured"}),
        ({"cpu": 3.0, "gpu": 1.0}, (0.0, 1.0, 0.0), {"cpu": "integrated", "gpu": "integrated"}),
        ({"cpu": 3.0, "gpu": 1.0}, (0.25, 0.0, 0.75), {"cpu": "modelled", "gpu": "measured"}),
        ({"cpu": 3.0, "gpu": 1.0}, (0.75, 0.25, 0.0), {"cpu": "measured", "gpu": "integrated"}),
        ({"cpu": 3.0, "gpu": 1.0}, (0.5, 0.0, 0.5), {"cpu": "modelled", "gpu": "modelled"}),  # a domain had both
        ({"cpu": 2.0, "gpu": 2.0}, (0.5, 0.0, 0.5), {"cpu": "modelled", "gpu": "modelled"}),  # either had either
        ({"cpu": 2.0, "dram": 2.0}, (0.5, 0.0, 0.5), {"cpu": "measured", "dram": "modelled"}),  # the method says
        ({"cpu": 2.0, "gpu": 2.0}, (0.5, 0.0, 0.0), {"cpu": "modelled", "gpu": "modelled"}),  # ratios of nothing
    ],
)
def test_what_isnt_known_to_be_measured_is_modelled(
    parts: dict[str, float], ratios: tuple[float, float, float], qualities: dict[str, str]
) -> None:
    part = part_of(receipt(
        energy_uj=4_000_000, energy_j={domain: {"direct": energy_j} for domain, energy_j in parts.items()},
        quality=dict(zip(QUALITIES, ratios, strict=True)), method={"dram": "modelled: 0.375 W per GiB"},
    ))  # fmt: skip
    assert part is not None
    assert {domain: name for domain, name in part.amounts if domain} == {
        domain: f"direct.{quality}" for domain, quality in qualities.items()
    }


@given(st.dictionaries(
    st.tuples(st.sampled_from(DOMAIN_KINDS), st.sampled_from(SHARE_KINDS), st.sampled_from(QUALITIES)),
    st.integers(1, 10**14), max_size=20,
))  # fmt: skip
def test_no_microjoule_is_lost_and_none_becomes_measured(energy_uj: dict[tuple[str, str, str], int]) -> None:
    whole, by_quality = sum(energy_uj.values()), dict.fromkeys(map(str, QUALITIES), 0)
    energy_j: dict[str, dict[str, float]] = {}
    for (domain, share, quality), uj in energy_uj.items():
        shares = energy_j.setdefault(domain, {})
        shares[share] = j_of(round(shares.get(share, 0) * 10**6) + uj)
        by_quality[quality] += uj
    ratios = {name: uj / whole if whole else 0.0 for name, uj in by_quality.items()}
    part = part_of(receipt(energy_uj=whole, energy_j=energy_j, quality=ratios))
    assert part is not None
    kept = {key: uj for key, uj in part.amounts.items() if key[0]}
    assert sum(kept.values()) == whole
    for quality in ("measured", "integrated"):
        assert sum(uj for (_, name), uj in kept.items() if name.endswith(quality)) <= by_quality[quality]


@given(st.dictionaries(st.sampled_from(TERMS), st.integers(0, 10**15)))
def test_grams_come_back_as_the_nanograms_that_they_were(terms_ng: dict[str, int]) -> None:
    part = part_of(
        receipt(gco2e={**dict.fromkeys(TERMS), **{term: g_of(ng) for term, ng in terms_ng.items()}}, taxes=[])
    )
    assert part is not None
    kept = {name: ng for (domain, name), ng in part.amounts.items() if domain == "" and name in TERMS}
    assert kept == {term: ng for term, ng in terms_ng.items() if ng}


@pytest.mark.parametrize(
    "changed",
    [
        {"basis": "daemon"},
        {"basis": "mixed"},
        {"job_id": "_node"},
        {"node": ""},
        {"product_id": 3},
        {"role": "thief"},
        {"uses": None},
        {"started_at": None},
        {"started_at": "yesterday"},
        {"started_at": "2026-05-28T20:26:40"},
        {"duration_s": float("nan"), "ended_at": None},
        {"energy_uj": -1},
        {"energy_uj": 1.5},
        {"energy_uj": 10**19},
        {"energy_j": {"cpu": {"direct": -0.1}}},
        {"energy_j": {"cpu": {"direct": float("inf")}}},
        {"energy_j": {"moon": {"direct": 1.0}}},
        {"energy_j": [1]},
        {"gco2e": {}},
        {"gco2e": {**dict.fromkeys(TERMS), "operation": "much"}},
        {"gco2e": {**dict.fromkeys(TERMS), "operation": 1e30}},
        {"taxes": [{"product_id": "p", "term": "operation", "gco2e": 1.0}]},
        {"quality": {}},
        {"expected_nodes": True},
    ],
)
def test_what_cant_be_a_part_is_passed_over(state: Path, changed: dict[str, Any]) -> None:
    leave(state, {**receipt(), **changed, **({} if "job_id" in changed else {"job_id": "bad"})})
    leave(state, receipt("good"), process="2")
    with archive_of(state) as archive:
        assert [one.id for one in archive.jobs()] == ["good"]


def test_garbage_in_the_directory_is_passed_over(state: Path) -> None:
    whole = leave(state, receipt())
    folder = whole.parent
    (folder / f"{'0' * 32}.json").write_bytes(b"\xff{")
    (folder / f"{'1' * 32}.json").write_text("[" * 100_000)
    (folder / f"{'2' * 32}.json").symlink_to(whole)
    (folder / f"{'3' * 32}.json").mkdir()
    os.mkfifo(folder / f"{'4' * 32}.json")
    (folder / "copy.json").write_bytes(whole.read_bytes())
    (folder / os.fsdecode(b"\xff.json")).write_bytes(whole.read_bytes())
    assert sum(job(state).energy_uj.values()) == 42_911


def test_what_was_taken_in_isnt_read_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        leave(state, receipt(f"j{number}"), process=str(number))
    (state / "receipts" / f"{'0' * 32}.json").write_text("garbage")
    read: list[Path] = []
    with archive_of(state) as archive:
        assert len(list(archive.jobs())) == 20
    monkeypatch.setattr("wattribute.agent.stored.read_part", read.append)
    archive_of(state).close()
    assert read == []


def test_two_who_read_at_once_take_it_in_once(state: Path) -> None:
    for number in range(50):
        leave(state, receipt(f"j{number}"), process=str(number))
    program = (
        "from wattribute.agent.archive import open_archive\nfrom wattribute.agent.config.schema import *\n"
        f"open_archive(Config(agent=Agent(state_dir={str(state)!r}))).close()"
    )
    readers = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [reader.wait(60) for reader in readers] == [0, 0, 0]
    with archive_of(state) as archive:
        assert sum(sum(one.energy_uj.values()) for one in archive.jobs()) == 50 * 42_911
        assert archive.verify() == []


def test_a_receipt_that_was_taken_away_leaves_its_job(state: Path) -> None:
    path = leave(state, receipt())
    first = job(state)
    path.unlink()
    assert job(state) == first


def test_what_was_exported_elsewhere_and_imported_isnt_taken_in_again(state: Path, tmp_path: Path) -> None:
    leave(state, receipt())
    elsewhere = tmp_path / "elsewhere"
    with archive_of(state) as archive, archive_of(elsewhere) as other:
        (strand,) = archive.strands("windows")
        kept = list(archive.kept("windows", strand))
        bundle = imports.Bundle(
            path="x", table="windows", schema=2, partial=False, strands=[strand],
            rows=lambda: (imports.Brought(strand.chain, one.position, one.row, one.hash) for one in kept),
        )  # fmt: skip
        assert imports.take(other, bundle).added == len(kept)
    leave(elsewhere, receipt())  # and the home directory was copied too
    assert job(elsewhere) == job(state)


def test_without_pulling_nothing_is_taken_in(state: Path, archive: Archive) -> None:
    leave(state, receipt())
    assert archive.job("j") is None


def test_the_price_is_told_exactly(state: Path) -> None:
    leave(state, receipt(intensity={"gco2e_per_kwh": 55.75, "grid_zone": "FR", "provider": "p", "quality": "static"}))
    said = _told(state)
    assert Fraction(said["operation_ng_per_kwh"], S) == Fraction("55.75")
    assert (said["zone"], said["provider"], said["quality"], said["final"]) == ("FR", "p", "static", True)


def _told(state: Path) -> dict[str, Any]:
    """What the row without a domain says of the one job."""
    with archive_of(state) as archive:
        (strand,) = archive.strands("windows")
        (said,) = [json.loads(one.row.prices) for one in archive.kept("windows", strand) if one.row.domain == ""]  # type: ignore[union-attr]
    return dict(said)


def _notes(state: Path) -> str:
    return "; ".join(_told(state)["notes"])
