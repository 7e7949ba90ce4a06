"""`doctor --embodied`: what a machine is made of meets the catalogue, and what is printed is a configuration."""

import json
import re
import tomllib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.doubles.machines import Roots, dell, virtual_machine
from tests.doubles.nvml import MissingCompiler, in_process

from wattribute.agent.cli import main
from wattribute.agent.config import load
from wattribute.agent.config.schema import Config
from wattribute.agent.core.catalogue import GENERIC, HOST_OF_EIGHT, best
from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.hardware import Component, Hardware
from wattribute.agent.core.units import YEAR_S, g_of, ng_from_kg
from wattribute.agent.embodied import assumed, propose, toml
from wattribute.agent.wiring import components
from wattribute.collectors.catalogue import catalogue
from wattribute.collectors.inventory import Inventory, take

H100 = "NVIDIA H100 80GB HBM3"


def doctor(tmp_path: Path, roots: Roots, text: str = "", *words: str) -> str:
    file = tmp_path / "w.toml"
    file.write_text(f'[paths]\nproc = "{roots.proc}"\nsys = "{roots.sys}"\n[collectors]\nnvml = "off"\n{text}')
    result = CliRunner(env={"COLUMNS": "120"}).invoke(main, ["doctor", "--embodied", "--config", str(file), *words])
    assert result.exit_code == 0, result.output
    return result.output


def configured(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "pasted.toml"
    file.write_text(text)
    return load(file, {}, {}).config


def parts_of(inventory: Inventory, gpus: Sequence[str] = ()) -> dict[str, tuple[float, str]]:
    return {part.item.id: (float(part.count), part.sure) for part in propose(inventory, gpus, catalogue()).parts}


def test_a_server_is_added_up_from_its_parts(tmp_path: Path) -> None:
    found = json.loads(doctor(tmp_path, dell(tmp_path / "m"), "", "--json"))
    counted = {part["item"]: part["count"] for part in found["parts"]}
    assert counted == {"server-chassis": 1, "cpu-xeon-sapphire-rapids": 2, "dram": 512, "ssd": 3840, "hdd": 2}
    central = 370 + 2 * 46.7 + 512 * 1.39 + 3840 * 0.040 + 2 * 31.1
    assert found["kgco2e"]["central"] == pytest.approx(central)
    assert found["kgco2e_per_year"]["central"] == pytest.approx(central / 4)
    assert found["gco2e_per_hour"]["central"] == pytest.approx(central / 4 / 8.760)
    assert found["kgco2e"]["low"] < central < found["kgco2e"]["high"]
    assert all(part["source"] and part["boundary"] and part["licence"] and part["year"] for part in found["parts"])


@pytest.mark.parametrize("machine", [dell, virtual_machine])
def test_what_is_printed_is_a_configuration_that_says_the_same(machine: Any, tmp_path: Path) -> None:
    roots = machine(tmp_path / "m")
    found = json.loads(doctor(tmp_path, roots, "", "--json"))
    shown = doctor(tmp_path, roots)
    assert shown.endswith(found["toml"])
    parts, note = components(configured(tmp_path, found["toml"]), [])
    assert not note
    again = json.loads(doctor(tmp_path, roots, found["toml"], "--json"))
    assert again["in_force"]["configured"]
    assert again["in_force"]["gco2e_per_hour"] == pytest.approx(found["gco2e_per_hour"], abs=1e-5)
    assert g_of(sum(round(part.embodied_ng * part.count) for part in parts)) / 1000 == pytest.approx(
        found["kgco2e"]["central"]
    )


def test_people_see_each_part_its_source_and_what_is_in_force(tmp_path: Path) -> None:
    shown = doctor(tmp_path, dell(tmp_path / "m"))
    for text in ("2 x Intel(R) Xeon(R) Gold 6430", "512 GB of memory", "2 x TOSHIBA MG08ACA16TE", "Together: 1,3"):
        assert text in shown
    assert "In force: assumed, since no [[embodied]] is configured, 34.2 (18.1 to 60) g an hour" in shown
    assert "dram: 1.39 kg per GB (0.065 to 1.77), making: cradle to gate, 2022; central: Cloud Carbon" in shown


def test_a_virtual_machine_is_a_part_of_a_host_that_it_does_not_show(tmp_path: Path) -> None:
    inventory = take(*virtual_machine(tmp_path))
    assert parts_of(inventory) == {"server-generic": (1, "generic")}
    assert "set `count`" in propose(inventory, [], catalogue()).notes[0]


def test_eight_gpus_on_a_board_have_a_host_of_their_own_kind() -> None:
    inventory = Inventory(cpu_model="Intel(R) Xeon(R) Platinum 8480C", sockets=2, memory_bytes=2**41)
    assert parts_of(inventory, [H100] * 8) == {HOST_OF_EIGHT: (1, "close"), "gpu-h100": (8, "exact")}


def test_a_virtual_machine_with_one_gpu_of_eight_has_an_eighth_of_the_host() -> None:
    proposal = propose(Inventory(virtual=True), ["NVIDIA H200"], catalogue())
    assert [(part.item.id, part.count, part.sure) for part in proposal.parts] == [
        (HOST_OF_EIGHT, Fraction(1, 8), "close"),
        ("gpu-h200", 1, "close"),
    ]
    assert "count = 0.125\n" in toml(proposal)
    assert "1 of a host's eight GPUs" in proposal.notes[0]


def test_a_product_with_a_footprint_of_its_own_is_taken_whole() -> None:
    inventory = Inventory(server="PowerEdge R740", cpu_model="A", sockets=2, memory_bytes=2**38)
    assert parts_of(inventory, ["NVIDIA L4"]) == {"server-dell-r740": (1, "exact"), "gpu-l4": (1, "close")}


def test_a_machine_that_tells_nothing_is_a_generic_server() -> None:
    assert parts_of(Inventory()) == {"server-generic": (1, "generic")}


def test_a_gpus_name_can_not_write_configuration(tmp_path: Path) -> None:
    text = toml(propose(Inventory(), ['X"\n[carbon]\npue = 9\n'], catalogue()))
    assert set(tomllib.loads(text)) == {"embodied"}


@pytest.mark.parametrize(
    ("kind", "name", "item", "sure"),
    [
        ("gpu", "NVIDIA H100 80GB HBM3", "gpu-h100", "exact"),
        ("gpu", "NVIDIA H100 PCIe", "gpu-h100", "close"),
        ("gpu", "NVIDIA H200", "gpu-h200", "close"),
        ("gpu", "NVIDIA B200", "gpu-b200", "exact"),
        ("gpu", "NVIDIA GB200", "gpu-generic", "generic"),
        ("gpu", "NVIDIA GH200 480GB", "gpu-generic", "generic"),
        ("gpu", "NVIDIA A100-SXM4-40GB", "gpu-a100-40gb", "exact"),
        ("gpu", "NVIDIA A100-PCIE-40GB", "gpu-a100-40gb", "close"),
        ("gpu", "NVIDIA A100-SXM4-80GB", "gpu-a100-80gb", "close"),
        ("gpu", "NVIDIA A100 80GB PCIe", "gpu-a100-80gb", "close"),
        ("gpu", "Tesla V100-SXM2-32GB", "gpu-v100", "close"),
        ("gpu", "NVIDIA L4", "gpu-l4", "close"),
        ("gpu", "NVIDIA L40S", "gpu-generic", "generic"),
        ("gpu", "", "gpu-generic", "generic"),
        ("cpu", "Intel(R) Xeon(R) Platinum 8480+", "cpu-xeon-sapphire-rapids", "exact"),
        ("cpu", "Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz", "cpu-generic", "generic"),
        ("cpu", "AMD EPYC 9354 32-Core Processor", "cpu-epyc-genoa", "close"),
        ("cpu", "AMD EPYC", "cpu-generic", "generic"),
        ("server", "DGXH100", HOST_OF_EIGHT, "close"),
        ("server", "DGX Station A100", "server-generic", "generic"),
        ("server", "PowerEdge R7425", "server-generic", "generic"),
    ],
)
def test_names_and_what_stands_for_them(kind: str, name: str, item: str, sure: str) -> None:
    found, how = best(catalogue(), kind, name)
    assert (found.id, how) == (item, sure)


def test_every_item_is_whole() -> None:
    items = catalogue()
    assert set(GENERIC.values()) | {HOST_OF_EIGHT} <= set(items)
    for item in items.values():
        assert 0 < item.low <= item.central <= item.high
        assert item.unit in ("each", "GB")
        assert item.what and item.boundary and item.source and item.licence and 2010 <= item.year <= 2030
        for pattern in (item.exact, item.close, item.hgx):
            re.compile(pattern)
        configured_one = Component(ng_from_kg(item.central), YEAR_S)
        assert configured_one.mass.central == ng_from_kg(item.central)


def test_without_configuration_it_is_a_generic_server_and_gpus_by_name() -> None:
    parts, note = components(Config(), [H100] * 8 + ["NVIDIA L4"])
    assert [(part.embodied_ng, float(part.count), part.gpu) for part in parts] == [
        (ng_from_kg(1200), 1, False),
        (ng_from_kg(164), 8, True),
        (ng_from_kg(49), 1, True),
    ]
    assert "a generic server of 1,200 kg (634 to 2,102), 8 x NVIDIA H100 80GB HBM3 of 164 kg each, 1 x " in note
    assert Hardware(parts).band() == (
        Fraction(634, 1200),
        Fraction(2102 * 10 + 8 * 5750 + 1235, 12000 + 8 * 1640 + 490),
    )
    assert [part.item.id for part in assumed([], catalogue())] == ["server-generic"]


def test_the_drivers_names_are_asked_for(tmp_path: Path) -> None:
    try:
        driver = in_process()
    except MissingCompiler as missing:
        pytest.skip(str(missing))
    driver.reset()
    driver.count(2)
    file = tmp_path / "w.toml"
    file.write_text(f'[paths]\nproc = "{tmp_path}/p"\nsys = "{tmp_path}/s"\n')
    result = CliRunner().invoke(main, ["doctor", "--embodied", "--json", "--config", str(file)])
    driver.reset()
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert len(found["found"]["gpus"]) == 2
    assert found["parts"][-1]["count"] == 2


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        configured(tmp_path, f"[[embodied]]\n{text}\n")
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('component = "gpu"', 'embodied[0]: give item = "..."'),
        ('component = "gpu"\nkgco2e_low = 3', 'embodied[0]: give item = "..."'),
        ('component = "gpu"\nitem = "gpu-h10"', 'did you mean "gpu-h100"?'),
        ('component = "gpu"\nitem = "zzzzzzz"', "`wattribute doctor --embodied` lists what fits"),
        ('component = "server"\nitem = "gpu-h100"', 'is no server: write component = "gpu"'),
        ('component = "gpu"\nitem = "gpu-h100"\nkgco2e = 3', "leave out kgco2e, or item"),
        ('component = "cpu"\nkgco2e = 3\nkgco2e_low = 4', "kgco2e_low (4) is above kgco2e (3)"),
        ('component = "cpu"\nkgco2e = 3\nkgco2e_high = 2', "kgco2e_high (2) is below kgco2e (3)"),
        ('component = "cpu"\nkgco2e = 0\nkgco2e_high = 2', "give the likeliest figure"),
        ('component = "cpu"\nkgco2e = 1200\nlifetime_years = 1e-9', "too much for one node: kgco2e is in kg"),
        ('component = "dram"\nitem = "dram"\ncount = 1e12', "too much for one node"),
    ],
)
def test_tables_that_say_nothing_or_too_much_are_refused(text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, text)


def test_figures_of_ones_own_have_their_bounds(tmp_path: Path) -> None:
    text = '[[embodied]]\ncomponent = "gpu"\nkgco2e = 200\nkgco2e_low = 150\nkgco2e_high = 400\ncount = 2\n'
    (part,), note = components(configured(tmp_path, text + "utilisation = 0.45\nlifetime_years = 5\n"), [])
    assert not note
    assert part == Component(
        ng_from_kg(200), 5 * YEAR_S, True, Fraction(2), Fraction(45, 100), ng_from_kg(150), ng_from_kg(400)
    )
