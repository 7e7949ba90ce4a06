"""Modelled power: exact integrals of a stated formula, and no guesses about which CPU this is."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.collectors.modelled import ModelledCollector, cpu_defaults

S = 1_000_000_000
TABLE = """Name,TDP
AMD EPYC 7763,280.0
AMD EPYC 7742,225
Intel Xeon E5-2680 v4,120.0
Intel Xeon E5-2680,130
Intel Xeon E5-2680 v2,115
Intel Core i7-8700K,95.0
Apple M1,10
Intel Core i5-1,15
Intel Core i5-1,25
broken,many
"""


class Host:
    """A clock and the node's CPU time."""

    def __init__(self) -> None:
        self.at_ns = 5 * S
        self.cpu_ns = 77 * S

    def collector(self, *, cpu: bool = True, dram: bool = True, cpus: int = 4) -> ModelledCollector:
        return ModelledCollector(
            lambda: self.at_ns,
            lambda: self.cpu_ns,
            cpus=cpus,
            cpu_idle_w=20.0,
            cpu_max_w=120.0,
            dram_w_per_gib=0.375,
            memory_bytes=16 * 2**30,
            cpu=cpu,
            dram=dram,
            why="no powercap here",
        )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "cpu_power.csv"
    path.write_text(TABLE)
    return path


def test_energy_is_idle_and_the_used_part_of_the_rest() -> None:
    host = Host()
    collector = host.collector()
    assert [r.energy_uj for r in collector.read()] == [0, 0]
    host.at_ns += 10 * S
    host.cpu_ns += 10 * S  # a quarter of four CPUs
    cpu, dram = collector.read()
    assert (cpu.domain.kind, cpu.domain.id, cpu.quality) == ("cpu", "cpu-modelled", "modelled")
    assert cpu.energy_uj == (20 + 100 // 4) * 10 * 1_000_000
    assert (dram.domain.kind, dram.domain.id, dram.quality) == ("dram", "dram-modelled", "modelled")
    assert dram.energy_uj == 6 * 10 * 1_000_000
    assert cpu.at_ns == dram.at_ns == host.at_ns
    collector.close()


def test_only_what_lacks_a_sensor_is_modelled() -> None:
    host = Host()
    assert [r.domain.kind for r in host.collector(cpu=False).read()] == ["dram"]
    assert [r.domain.kind for r in host.collector(dram=False).read()] == ["cpu"]
    assert [f.path for f in host.collector(dram=False).probe()] == ["cpu-modelled"]


def test_findings_say_why_and_how_to_mend_it() -> None:
    cpu, dram = Host().collector().probe()
    assert cpu.ok
    assert cpu.quality == dram.quality == "modelled"
    assert "no powercap here" in cpu.why
    assert cpu.value == "20 W idle to 120 W, 4 CPUs"
    assert "[modelled]" in cpu.fix


@given(st.lists(st.tuples(st.integers(-S, 10 * S), st.integers(-S, 100 * S)), max_size=20))
def test_energy_never_falls_and_power_never_exceeds_the_maximum(steps: list[tuple[int, int]]) -> None:
    host = Host()
    collector = host.collector()
    start_ns, last = host.at_ns, [0, 0]
    for step_ns, used_ns in steps:
        host.at_ns += step_ns
        host.cpu_ns += used_ns
        readings = collector.read()
        energy_uj = [r.energy_uj for r in readings]
        assert all(now >= before for now, before in zip(energy_uj, last, strict=True))
        elapsed_ns = readings[0].at_ns - start_ns
        assert 20 * elapsed_ns // 1000 <= energy_uj[0] <= 120 * elapsed_ns // 1000
        last = energy_uj


def test_cpu_time_that_comes_in_a_lump_is_all_counted_in_the_end() -> None:
    host = Host()
    collector = host.collector(dram=False)
    host.cpu_ns += 8 * S
    host.at_ns += S
    collector.read()
    host.at_ns += S
    assert collector.read()[0].energy_uj == (20 * 2 + 100 * 8 // 4) * 1_000_000


@pytest.mark.parametrize(
    ("name", "threads", "packages", "max_w", "words"),
    [
        ("AMD EPYC 7763 64-Core Processor", 128, 1, 280.0, "TDP of AMD EPYC 7763"),
        ("AMD EPYC 7763 64-Core Processor", 256, 2, 560.0, "2 of them"),
        ("AMD EPYC 7763 64-Core Processor", 64, 1, 280.0, "TDP of AMD EPYC 7763"),  # SMT is off
        ("AMD EPYC 7763 64-Core Processor", 8, None, 17.5, "8 of its 128 threads"),
        ("AMD EPYC 7763 64-Core Processor", 8, 1, 17.5, "8 of its 128 threads"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", 56, 2, 240.0, "Xeon E5-2680 v4"),
        ("Intel(R) Xeon(R) CPU E5-2680 0 @ 2.70GHz", 16, 1, 64.0, "isn't in CodeCarbon's CPU table"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", 4, None, 16.0, "a virtual machine's part"),
        ("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", 12, 1, 95.0, "Core i7-8700K"),
        ("8th Gen Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", 12, 1, 95.0, "Core i7-8700K"),
        ("AMD EPYC", 2, None, 8.0, "generic 4 W a thread"),
        ("AMD EPYC Processor", 2, None, 8.0, "generic 4 W a thread"),
        ("Apple M1 Max", 10, 1, 40.0, "generic 4 W a thread"),
        ("Apple M1", 8, 1, 10.0, "Apple M1"),
        ("Intel Core i5-1", 4, 1, 16.0, "generic 4 W a thread"),  # two rows, two powers
        ("", 4, 1, 16.0, "generic 4 W a thread"),
    ],
)
def test_rated_power(table: Path, name: str, threads: int, packages: int | None, max_w: float, words: str) -> None:
    idle_w, found_w, source = cpu_defaults(name, threads, packages, table)
    assert found_w == max_w
    assert idle_w == pytest.approx(max_w / 10)
    assert words in source


@given(name=st.text(max_size=60), threads=st.integers(1, 1024))
def test_any_name_yields_a_plausible_power(name: str, threads: int) -> None:
    idle_w, max_w, source = cpu_defaults(name, threads)
    assert 0 < idle_w < max_w
    assert source


@pytest.mark.skipif(importlib.util.find_spec("codecarbon") is None, reason="missing: codecarbon")
def test_the_installed_table_is_read_without_importing_codecarbon() -> None:
    code = (
        "import sys; from wattribute.collectors.modelled import cpu_defaults;"
        "print(cpu_defaults('AMD EPYC 7763 64-Core Processor', 128)[2], 'codecarbon' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("TDP of AMD EPYC 7763, 280 W")
    assert done.stdout.endswith("False\n")


def test_a_table_that_is_not_there_is_no_match(tmp_path: Path) -> None:
    assert cpu_defaults("Apple M1", 8, 1, tmp_path / "none.csv")[1] == 32.0
