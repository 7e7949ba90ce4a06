"""`doctor` of a sensor of the whole node: what it shows, or what mends it, and exit 1 where it can't be read."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.doubles.powercap import PowercapTree
from tests.doubles.redfish import Redfish

from wattribute.agent.cli import main


def doctor(folder: Path, wall: str, text: str = "") -> tuple[int, dict[str, str]]:
    """The exit code, and what was found of the wall."""
    file = folder / "w.toml"
    file.write_text(
        f'[agent]\nsocket = "{folder}/a.sock"\nstate_dir = "{folder}/state"\n[paths]\nsys = "{folder}/sys"\n'
        f'[collectors]\nnvml = "off"\nwall = "{wall}"\n{text}'
    )
    result = CliRunner().invoke(main, ["doctor", "--config", str(file), "--json"])
    (found,) = [one for one in json.loads(result.stdout) if one["source"] == "wall"]
    return result.exit_code, found


@pytest.mark.parametrize(
    ("wall", "fix"), [("psys", "wattribute doctor lists them"), ("hwmon", "acpi_power_meter"), ("ipmi", "ipmi_devintf")]
)
def test_a_sensor_that_isnt_there_is_exit_1_with_the_fix(tmp_path: Path, wall: str, fix: str) -> None:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        tree.add_package()
        if wall == "ipmi" and any(Path(path).exists() for path in ("/dev/ipmi0", "/dev/ipmi/0", "/dev/ipmidev/0")):
            pytest.skip("this machine has a BMC")
        code, found = doctor(tmp_path, wall)
    assert code == 1
    assert fix in found["fix"]


def test_a_sensor_that_can_be_read_shows_its_value(tmp_path: Path) -> None:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        tree.add_package()
        tree.add_zone("psys", energy_uj=77)
        assert doctor(tmp_path, "psys")[1]["value"] == "77 uJ"
        with Redfish() as bmc:
            code, found = doctor(tmp_path, "redfish", f'[wall]\nurl = "{bmc.url}"\n')
    assert (code, found["value"], found["quality"]) == (0, "153 W", "integrated")
