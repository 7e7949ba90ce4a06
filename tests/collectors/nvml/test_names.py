"""Product names of the GPUs, by UUID: what says what they cost to make."""

from tests.doubles.nvml import NvmlDouble

from wattribute.collectors.nvml import NvmlCollector


def test_each_gpu_has_its_name(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(2)
    driver.gpus[1].model("NVIDIA A100-SXM4-40GB", (8, 0))
    assert collector.names() == {}
    collector.read()
    names = collector.names()
    assert list(names) == list(collector.indices().values())
    assert list(names.values()) == ["NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB"]


def test_a_name_outlives_the_session(driver: NvmlDouble, collector: NvmlCollector) -> None:
    collector.read()
    names = dict(collector.names())
    collector.release()
    assert collector.names() == names


def test_a_gpu_that_tells_no_name_is_read_all_the_same(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.gpus[0].fail("name", 3)
    assert collector.read()
    assert list(collector.names().values()) == [""]
