"""Sensors of the whole node: which chip of a hwmon tree it is, and a BMC that answers by Redfish, well or not."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.doubles.redfish import BOX, CHASSIS, Answering, Redfish
from tests.tools import require

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import EnergyReading, PowerReading
from wattribute.collectors.wall.hwmon import HwmonWall, meters, the_meter
from wattribute.collectors.wall.redfish import Login, RedfishWall, credentials

S = 1_000_000_000


class Hwmon:
    """A hwmon class in files. Older kernels keep an ACPI meter's figures with its device, `inside`."""

    def __init__(self, root: Path) -> None:
        self.sys = root
        self._count = 0

    def add(self, name: str, device: str, *, inside: bool = False, **files: object) -> Path:
        place = self.sys / "devices" / device
        folder = self.sys / "class" / "hwmon" / f"hwmon{self._count}"
        self._count += 1
        place.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True)
        (folder / "device").symlink_to(place)
        (folder / "name").write_text(f"{name}\n")
        for file, value in files.items():
            ((place if inside else folder) / file).write_text(f"{value}\n")
        return place if inside else folder


@pytest.fixture
def hwmon(tmp_path: Path) -> Hwmon:
    made = Hwmon(tmp_path)
    made.add("coretemp", "coretemp.0", temp1_input=40000)
    made.add("amdgpu", "0000:03:00.0", power1_average=30_000_000, energy1_input=5)
    return made


def read_one(sys: Path, chip: str = "") -> EnergyReading | PowerReading:
    collector = HwmonWall(sys, lambda: S, chip)
    try:
        (reading,) = collector.read()
        assert collector.finding().ok
        return reading
    finally:
        collector.close()


@pytest.mark.parametrize("inside", [True, False])
def test_an_acpi_power_meter_is_the_node(hwmon: Hwmon, inside: bool) -> None:
    hwmon.add("power_meter", "ACPI000D:00", inside=inside, power1_average=214_000_000, power1_average_interval=1000)
    reading = read_one(hwmon.sys)
    assert isinstance(reading, PowerReading)
    assert (reading.power_uw, reading.quality, reading.domain.kind) == (214_000_000, "integrated", "psys")
    collector = HwmonWall(hwmon.sys, lambda: S)
    finding = collector.finding()
    collector.close()
    assert (finding.value, finding.resolution, finding.quality) == ("214 W", "averaged over 1 s", "integrated")


def test_of_a_chip_with_many_figures_the_systems_is_taken_and_energy_before_power(hwmon: Hwmon) -> None:
    hwmon.add(
        "ibmpowernv",
        "opal-sensor",
        power1_label="GPU",
        power1_input=1,
        power7_label="System",
        power7_input=2,
        energy7_input=3_000_000,
    )
    reading = read_one(hwmon.sys)
    assert isinstance(reading, EnergyReading)
    assert (reading.energy_uj, reading.quality) == (3_000_000, "measured")


def test_graces_meters_hold_each_other_and_none_is_the_node(hwmon: Hwmon) -> None:
    for number, what in enumerate(("Module", "Grace", "CPU", "SysIO")):
        told = f"{what} Power Socket 0"
        hwmon.add("power_meter", f"ACPI000D:0{number}", inside=True, power1_average=1, power1_oem_info=told)
    with pytest.raises(SensorUnavailable, match=r"ACPI000D:00 measures a part of the node \(Module Power Socket 0\)"):
        the_meter(hwmon.sys)
    assert the_meter(hwmon.sys, "ACPI000D:00").device == "ACPI000D:00"  # who names it knows


def test_of_two_meters_one_must_be_named(hwmon: Hwmon) -> None:
    for number in (0, 1):
        hwmon.add("power_meter", f"ACPI000D:0{number}", power1_average=100_000_000 * (number + 1))
    with pytest.raises(SensorUnavailable, match=r"2 chips .* ACPI000D:00, ACPI000D:01.*chip = "):
        the_meter(hwmon.sys)
    reading = read_one(hwmon.sys, "ACPI000D:01")
    assert isinstance(reading, PowerReading)
    assert reading.power_uw == 200_000_000


def test_a_chip_may_be_named_but_no_gpu(hwmon: Hwmon) -> None:
    hwmon.add("ina226", "1-0040", power1_input=12_000_000)
    with pytest.raises(SensorUnavailable, match=r"no chip .* modprobe acpi_power_meter"):
        the_meter(hwmon.sys)
    assert the_meter(hwmon.sys, "ina226").chip == "ina226"
    with pytest.raises(SensorUnavailable, match=r"\(amdgpu\) measures a part"):
        the_meter(hwmon.sys, "amdgpu")
    assert meters(hwmon.sys / "nowhere") == []


def test_what_is_no_number_is_an_absence_and_a_driver_that_comes_back_is_found(hwmon: Hwmon) -> None:
    folder = hwmon.add("power_meter", "ACPI000D:00", power1_average=100_000_000)
    collector = HwmonWall(hwmon.sys, lambda: S)
    for text in ("-5", "", "12 W", "0", "100000000001"):
        (folder / "power1_average").write_text(text)
        with pytest.raises(SensorUnavailable, match=r"no number|no node draws"):
            collector.read()
    (folder / "power1_average").unlink()
    (folder / "power1_average").write_text("7000000\n")
    (reading,) = collector.read()
    assert isinstance(reading, PowerReading)
    assert reading.power_uw == 7_000_000
    collector.close()
    collector.close()


@pytest.fixture
def bmc() -> Iterator[Redfish]:
    with Redfish() as served:
        yield served


def asking(bmc: Redfish, login: Login | None = None, **fields: object) -> RedfishWall:
    nobody = Login("", "", "nobody")
    more = {"timeout_s": 5.0, "bridge_ns": 30 * S} | fields
    return RedfishWall(bmc.url, login or nobody, lambda: S, **more)  # type: ignore[arg-type]


def test_power_is_read_where_there_is_no_counter(bmc: Redfish) -> None:
    collector = asking(bmc)
    assert collector.read() == [
        PowerReading(domain=collector.read()[0].domain, at_ns=S, power_uw=153_000_000, bridge_ns=30 * S)
    ]
    assert [path for path, _ in bmc.asked[:5]] == [
        CHASSIS,
        BOX,
        f"{BOX}/EnvironmentMetrics",
        f"{BOX}/Power",
        f"{BOX}/Power",
    ]
    assert len(bmc.asked) == 6  # then one question each
    assert collector.finding().quality == "integrated"


def test_a_fine_counter_goes_before_power_and_a_coarse_one_doesnt(bmc: Redfish) -> None:
    bmc.count("1234.567", 200.5)
    (reading,) = asking(bmc).read()
    assert isinstance(reading, EnergyReading)
    assert reading.energy_uj == int(Decimal("1234.567") * 3_600_000_000_000)
    bmc.count("1234", 200.5)
    (reading,) = asking(bmc).read()
    assert isinstance(reading, PowerReading)
    assert reading.power_uw == 200_500_000


def test_the_login_is_sent_and_never_said(bmc: Redfish, tmp_path: Path) -> None:
    bmc.login = "reader:pa ss:wörd"
    file = tmp_path / "bmc"
    file.write_text("reader\npa ss:wörd\n")
    file.chmod(0o600)
    login = credentials(str(file), {})
    assert asking(bmc, login).finding().ok
    assert "wörd" not in repr(login)
    wrong = credentials("", {"REDFISH_USER": "reader", "REDFISH_PASSWORD": "guess"})
    guesser = asking(bmc, wrong)
    finding = guesser.finding()
    assert "401" in finding.why
    asked = len(bmc.asked)
    assert guesser.finding() == finding
    assert len(bmc.asked) == asked  # the BMC would lock that user out
    assert "guess" not in f"{finding}"
    assert "wall.credentials_file" in finding.fix
    file.chmod(0o644)
    assert f"chmod 600 {file}" in credentials(str(file), {}).where


@pytest.mark.parametrize("text", [b"", b"only", b"a:b\nc", b"\xff\xfe\n\xff", b"\n\n"])
def test_a_file_without_a_login_is_an_error_that_shows_nothing(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "bmc"
    file.write_bytes(text)
    with pytest.raises(SensorUnavailable, match="doesn't hold a user and a password"):
        credentials(str(file), {})
    with pytest.raises(SensorUnavailable, match="only one of"):
        credentials("", {"REDFISH_USER": "me"})
    with pytest.raises(SensorUnavailable, match="No such file"):
        credentials(str(tmp_path / "none"), {})


def trickle(answering: Answering) -> None:
    """Headers, one by one: none is late, and the answer has no end."""
    answering.send_response(200)
    with contextlib.suppress(OSError):
        for number in range(40):
            answering.send_header(f"X-{number}", "y")
            answering.flush_headers()
            time.sleep(0.05)


TROUBLE: dict[str, tuple[Callable[[Answering], None], str]] = {
    "redirect": (lambda a: a.reply(302, "", Location="http://127.0.0.1:1/"), "answers 302"),
    "broken": (lambda a: a.reply(200, "{"), "no Redfish answer"),
    "a list": (lambda a: a.reply(200, "[]"), "holds no object"),
    "deep": (lambda a: a.reply(200, "[" * 100_000), "no Redfish answer"),
    "large": (lambda a: a.reply(200, " " * 2**20 + "{}"), "no Redfish answer"),
    "hung": (lambda a: a.server.released.wait(5) and None, "no whole answer within 0.2 s"),  # type: ignore[attr-defined]
    "trickling": (trickle, "no whole answer within 0.2 s"),
    "error": (lambda a: a.reply(500, "{}"), "answers 500"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_bmc_in_trouble_is_an_absence_with_a_fix(bmc: Redfish, trouble: str) -> None:
    bmc.trouble, said = TROUBLE[trouble]
    finding = asking(bmc, timeout_s=0.2 if trouble in ("hung", "trickling") else 5.0).finding()
    assert not finding.ok
    assert said in finding.why
    assert finding.fix


@pytest.mark.parametrize("value", [None, "-3", "true", '"153"', "1e400", "NaN", "0", "1e-30", "100001"])
def test_what_is_no_power_is_an_absence(bmc: Redfish, value: str | None) -> None:
    collector = asking(bmc)
    collector.read()
    bmc.draw(value)
    with pytest.raises(SensorUnavailable, match="is no figure of a node now"):
        collector.read()
    bmc.draw(7)
    (reading,) = collector.read()
    assert isinstance(reading, PowerReading)
    assert reading.power_uw == 7_000_000


def test_several_chassis_are_named_and_one_may_be_chosen(bmc: Redfish) -> None:
    bmc.resources[CHASSIS] = f'{{"Members": [{{"@odata.id": "{BOX}"}}, {{"@odata.id": "{CHASSIS}/HGX_GPU_0"}}]}}'
    finding = asking(bmc).finding()
    assert "2 chassis" in finding.why
    assert f'{BOX}"' in finding.fix
    bmc.url += BOX
    assert asking(bmc).finding().ok


def test_a_link_to_another_host_isnt_followed(bmc: Redfish) -> None:
    bmc.resources[CHASSIS] = '{"Members": [{"@odata.id": "http://10.0.0.1/redfish/v1"}]}'
    assert "0 chassis" in asking(bmc).finding().why


def test_nobody_there_is_an_absence() -> None:
    with Redfish() as gone:
        pass
    finding = asking(gone).finding()
    assert "refused" in finding.why
    assert finding.fix == "set wall.url to the BMC"


def test_only_who_the_file_vouches_for_is_the_bmc(tmp_path: Path) -> None:
    """A BMC's own certificate, whatever name is in it; and no other."""
    openssl, made = require("openssl"), []
    for name in ("bmc", "other"):
        key, certificate = tmp_path / f"{name}.key", tmp_path / f"{name}.pem"
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        out = ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run([openssl, "req", "-x509", *new, *out], check=True, capture_output=True)
        made.append((certificate, key))
    with Redfish(*made[0]) as bmc:
        assert asking(bmc, ca_file=str(made[0][0])).finding().ok
        for wrong in ("", str(made[1][0])):
            finding = asking(bmc, ca_file=wrong).finding()
            assert "isn't trusted" in finding.why
            assert "wall.ca_file" in finding.fix
        assert [login for _, login in bmc.asked] == [""] * 5
    with pytest.raises(SensorUnavailable, match="no certificate in PEM"):
        asking(bmc, ca_file=str(tmp_path / "bmc.key"))
