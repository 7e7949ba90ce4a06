"""A BMC by IPMI: the calls of the kernel's device, against a double compiled with the kernel's own header."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tools import require

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.collectors.wall.ipmi import IpmiWall, power_of

DOUBLE = Path(__file__).resolve().parents[1] / "doubles" / "ipmi.c"
SRC = Path(__file__).resolve().parents[2] / "src"
ASK_EACH = """
import dataclasses, json, sys, pathlib
from wattribute.collectors.wall.ipmi import IpmiWall
device, file, *answers = sys.argv[1:]
bmc = IpmiWall(lambda: 1, timeout_s=0.2, bridge_ns=30, devices=("/nowhere", device))
for answer in answers:
    pathlib.Path(file).write_bytes(bytes.fromhex(answer))
    print(json.dumps(dataclasses.asdict(bmc.finding())))
bmc.close(); bmc.close()
print(json.dumps(dataclasses.asdict(bmc.finding())))
"""


def answer_of(power_w: int, *, state: int = 0x40) -> bytes:
    return struct.pack("<BBHHHHIIB", 0, 0xDC, power_w, 1, 2, 3, 1_700_000_000, 1000, state)


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("ipmi") / "ipmi.so"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([require("cc"), *flags, "-o", library, DOUBLE, "-ldl"], check=True)
    return library


def test_the_bmc_is_asked_as_the_kernel_wants_it(double: Path, tmp_path: Path) -> None:
    """Structures and numbers of calls are the header's, or the double answers nothing."""
    device, file = tmp_path / "ipmi0", tmp_path / "answer"
    os.mkfifo(device)
    answers = [answer_of(214), b"\xc1", answer_of(0, state=0), b"", answer_of(215), b"\0\xdc\1"]
    environment = {**os.environ, "LD_PRELOAD": str(double), "IPMI_DOUBLE_ANSWER": str(file), "PYTHONPATH": str(SRC)}
    words = [sys.executable, "-c", ASK_EACH, str(device), str(file), *(answer.hex() for answer in answers)]
    out = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    found: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert [(one["ok"], one["value"]) for one in found[:1]] == [(True, "214 W")]
    assert found[0]["path"] == str(device)
    assert [one["why"] for one in found[1:4]] == [
        "the BMC doesn't know DCMI power readings",
        "the BMC's power measurement is switched off",
        f"{device}: no answer of the BMC within 0.2 s",
    ]
    assert found[4]["value"] == "215 W"
    assert "no DCMI power reading" in found[5]["why"]
    assert not found[6]["ok"]
    assert all(one["fix"] for one in found if not one["ok"])


@given(st.binary(max_size=40))
def test_any_answer_is_a_power_or_an_absence(answer: bytes) -> None:
    try:
        assert 0 < power_of(answer) < 65535
    except SensorUnavailable as error:
        assert error.fix


@pytest.mark.parametrize("power_w", [0, 65535])
def test_what_no_node_draws_is_an_absence(power_w: int) -> None:
    with pytest.raises(SensorUnavailable, match=f"tells {power_w} W"):
        power_of(answer_of(power_w))


def test_no_device_is_said_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(SensorUnavailable, match="modprobe -a ipmi_si ipmi_devintf") as raised:
        IpmiWall(lambda: 1, timeout_s=1, bridge_ns=1, devices=(str(tmp_path / "ipmi0"),))
    assert raised.value.absent
    (tmp_path / "ipmi0").write_text("")
    with pytest.raises(SensorUnavailable, match="no IPMI device"):
        IpmiWall(lambda: 1, timeout_s=1, bridge_ns=1, devices=(str(tmp_path / "ipmi0"),))
