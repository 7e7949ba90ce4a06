"""What a machine is made of, on trees as Linux shows them."""

from pathlib import Path

import pytest
from tests.doubles.machines import GIB, cpuinfo, dell, disk, lay_down, virtual_machine

from wattribute.collectors.inventory import Disk, Inventory, take


def test_a_server_is_told_part_by_part(tmp_path: Path) -> None:
    found = take(*dell(tmp_path))
    assert (found.cpu_model, found.sockets) == ("Intel(R) Xeon(R) Gold 6430", 2)
    assert found.memory_bytes == 512 * GIB
    assert (found.server, found.virtual) == ("PowerEdge R660", False)


def test_only_disks_of_its_own_count(tmp_path: Path) -> None:
    nvme, hard = "Dell Ent NVMe v2 AGN RI U.2 1.92TB", "TOSHIBA MG08ACA16TE"
    assert take(*dell(tmp_path)).disks == (
        Disk(name="nvme0n1", model=nvme, size_bytes=1_920_000_000_000, rotational=False),
        Disk(name="nvme1n1", model=nvme, size_bytes=1_920_000_000_000, rotational=False),
        Disk(name="sda", model=hard, size_bytes=16_000_000_000_000, rotational=True),
        Disk(name="sdb", model=hard, size_bytes=16_000_000_000_000, rotational=True),
    )


def test_a_virtual_machine_says_that_it_is_one(tmp_path: Path) -> None:
    found = take(*virtual_machine(tmp_path))
    assert found.virtual
    assert found.disks == ()
    assert found.memory_bytes == 16_000_000 * 1024


@pytest.mark.parametrize(
    ("vendor", "product", "virtual"),
    [
        ("QEMU", "Standard PC (i440FX + PIIX, 1996)", True),
        ("VMware, Inc.", "VMware Virtual Platform", True),
        ("Microsoft Corporation", "Virtual Machine", True),
        ("Google", "Google Compute Engine", True),
        ("Xen", "HVM domU", True),
        ("NVIDIA", "DGXH100", False),
        ("Supermicro", "SYS-821GE-TNHR", False),
        ("Amazon EC2", "p5.48xlarge", False),  # its CPU's flags say so, unless it is bare metal
    ],
)
def test_firmware_tells_of_a_hypervisor(vendor: str, product: str, virtual: bool, tmp_path: Path) -> None:
    roots = lay_down(tmp_path, cpus=cpuinfo("A", 1), dmi={"sys_vendor": vendor, "product_name": product})
    assert take(*roots).virtual == virtual


@pytest.mark.parametrize("name", ["To Be Filled By O.E.M.", "Default string", "System Product Name", "None", ""])
def test_a_makers_placeholder_is_no_name(name: str, tmp_path: Path) -> None:
    assert take(*lay_down(tmp_path, dmi={"product_name": name})).server == ""


def test_what_firmware_writes_is_one_printable_line(tmp_path: Path) -> None:
    roots = lay_down(tmp_path, dmi={"product_name": "R1\n[[embodied]]\nkgco2e = 0\x1b[2J\0"})
    assert take(*roots).server == "R1[[embodied]]kgco2e = 0[2J"


def test_arm_tells_its_sockets_in_sys(tmp_path: Path) -> None:
    roots = lay_down(tmp_path, cpus="processor\t: 0\nCPU implementer\t: 0x41\n")
    for cpu, package in ((0, "0"), (1, "0"), (2, "1"), (3, "-1")):
        path = roots.sys / f"devices/system/cpu/cpu{cpu}/topology/physical_package_id"
        path.parent.mkdir(parents=True)
        path.write_text(package + "\n")
    assert take(*roots) == Inventory(sockets=2)


def test_memory_without_blocks_is_what_the_kernel_has_left(tmp_path: Path) -> None:
    assert take(*lay_down(tmp_path, mem_total_kb=1000)).memory_bytes == 1_024_000


def test_where_nothing_can_be_read_nothing_is_guessed(tmp_path: Path) -> None:
    assert take(tmp_path / "proc", tmp_path / "sys") == Inventory()


@pytest.mark.parametrize("size", ["", "many", "-1", "0", "²"])
def test_a_disk_whose_size_is_not_told_is_left_out(size: str, tmp_path: Path) -> None:
    assert take(*lay_down(tmp_path, disks={"sda": disk("A", 1) | {"size": size}})).disks == ()


def test_this_machine_can_be_taken() -> None:
    assert isinstance(take(), Inventory)
