"""What doctor finds."""

from collections.abc import Callable

import pytest
from tests.doubles.nvml import NvmlDouble

from wattribute.collectors.nvml import probe


def look(driver: NvmlDouble) -> Callable[[], list[tuple[bool, str, str]]]:
    def found() -> list[tuple[bool, str, str]]:
        return [(f.ok, f.why, f.fix) for f in probe(clock=driver.now_ns, library=str(driver.library))]

    return found


def test_doctor_tells_each_gpu(driver: NvmlDouble) -> None:
    driver.count(4)
    driver.gpus[1].fail("energy", 3)
    driver.gpus[2].model("NVIDIA A100-SXM4-40GB", (8, 0))
    driver.gpus[2].mig()
    driver.gpus[3].break_down(4)
    findings = probe(clock=driver.now_ns, library=str(driver.library))
    assert [finding.ok for finding in findings] == [True, True, True, False]
    assert [finding.quality for finding in findings] == ["measured", "integrated", "measured", None]
    assert findings[0].path == driver.gpus[0].uuid
    assert findings[1].value == "100.000 W"
    assert "MIG: by slices of instances with a process" in findings[2].why
    assert "energy counter, split by SM time" in findings[0].why
    assert "usermod" in findings[3].fix


def test_doctor_explains_a_gpu_without_energy(driver: NvmlDouble) -> None:
    driver.gpus[0].model("Tesla P100", (6, 0))
    driver.gpus[0].fail("energy", 3)
    driver.gpus[0].fail_fields(3)
    ((ok, why, fix),) = look(driver)()
    assert not ok
    assert "isn't integrated" in why
    assert fix


@pytest.mark.parametrize(
    ("code", "fix"), [(9, "modprobe"), (4, "usermod"), (18, "restart the agent"), (17, "restart the container")]
)
def test_doctor_names_the_fix_of_a_driver_that_refuses(driver: NvmlDouble, code: int, fix: str) -> None:
    driver.fail("init", code)
    ((ok, _, named),) = look(driver)()
    assert not ok
    assert fix in named


def test_doctor_without_gpu_or_library(driver: NvmlDouble) -> None:
    driver.count(0)
    ((ok, why, fix),) = look(driver)()
    assert (ok, why, bool(fix)) == (False, "the NVIDIA driver shows no GPU here", True)
    (finding,) = probe(clock=driver.now_ns, library="/nowhere/libnvidia-ml.so.1")
    assert not finding.ok
    assert "install" in finding.fix
