"""A node with a sensor of all of it: what is on the page, in receipts and in the ledger; and what stops the start."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.node_bench import Bench, HandClock, S, Worker
from tests.doubles.powercap import PowercapTree, Zone
from tests.doubles.redfish import Redfish
from tests.e2e.running import total

from wattribute.agent.config import Collectors, Config, Paths, load
from wattribute.agent.core.errors import ConfigError, SensorUnavailable
from wattribute.agent.core.model import Domain, PowerReading
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.opening import SystemClock, sense
from wattribute.agent.wall import WallSource, open_wall, the_psys
from wattribute.agent.wiring import Sensors

NO_MODEL = 'modelled = "off"\nnvml = "off"\n'


class Node:
    """A bench with a psys zone and a power meter, which see 100 W more than the package and its memory."""

    def __init__(self, tree: PowercapTree, folder: Path) -> None:
        tree.say_cpu()
        self.bench = Bench(folder, tree.add_package())
        self.psys: Zone = tree.add_zone("psys")
        self.meter = folder / "sys" / "class" / "hwmon" / "hwmon3" / "device" / "power1_average"
        self.meter.parent.mkdir(parents=True)
        (self.meter.parents[1] / "name").write_text("power_meter\n")
        self.draw(153_000_000)

    def draw(self, power_uw: int) -> None:
        self.meter.write_text(f"{power_uw:20d}\n")

    def tick(self, seconds: float = 1.0, wall_uw: int = 153_000_000) -> None:
        self.psys.add(round(wall_uw * seconds))
        self.bench.tick(seconds)

    def rest_j(self) -> float:
        return float(total(self.bench.page(), "wattribute_node_energy_joules_total", domain="rest"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with PowercapTree(tmp_path / "sys") as tree:
        made = Node(tree, tmp_path)
        yield made
        made.bench.close()
    with read_only(tmp_path / "state") as ledger:
        assert ledger.verify() == []


@pytest.fixture
def worker() -> Iterator[Worker]:
    started = Worker()
    yield started
    started.kill()


@pytest.mark.parametrize(("wall", "quality", "unseen"), [("psys", "measured", ["psu"]), ("hwmon", "integrated", [])])
def test_the_page_and_the_receipt_have_the_rest(
    node: Node, worker: Worker, wall: str, quality: str, unseen: list[str]
) -> None:
    """And the page adds up, which Bench.page looks at."""
    node.bench.open(collectors=f'{NO_MODEL}wall = "{wall}"')
    node.tick()
    node.bench.start("a", worker.pid)
    node.psys.add(7_650_000)  # of the tick that a start makes
    for _ in range(4):
        worker.burn(0.05)
        node.tick()
    samples = node.bench.page()
    shown = total(samples, "wattribute_node_energy_joules_total", domain="rest", device=wall, quality=quality)
    assert 300 <= float(shown) <= 510
    assert node.bench.node.condition.problem([]) == ""
    receipt = node.bench.receipt("a")
    assert sum(receipt["energy_j"]["rest"].values()) > 0
    assert receipt["boundary"] == {"included": ["cpu", "dram", "rest"], "missing": unseen}
    assert receipt["method"]["rest"].endswith("less what cpu, dram and gpu counted; split as they are, idle as theirs")
    assert total(samples, "wattribute_source_up", source="rapl" if wall == "psys" else "wall") == 1


def test_without_a_wall_sensor_psys_is_read_and_never_added(node: Node) -> None:
    node.bench.open()
    node.tick()
    node.tick()
    assert node.rest_j() == 0
    assert node.bench.node.books.rest is None


def test_the_rest_goes_on_over_a_restart_and_is_never_counted_twice(node: Node) -> None:
    node.bench.open(collectors=f'{NO_MODEL}wall = "psys"')
    node.tick()
    node.tick()
    before_j = node.rest_j()
    node.bench.kill()
    node.psys.add(10 * 153_000_000)
    node.bench.package.package.add(10 * 50_000_000)
    assert node.bench.package.dram is not None
    node.bench.package.dram.add(10 * 3_000_000)
    node.bench.clock.pass_(10)
    node.bench.open()
    node.tick()
    node.tick()
    assert node.rest_j() == pytest.approx(before_j + 1200, abs=0.001)


def test_a_lost_meter_is_a_gap_in_the_ledger(node: Node, tmp_path: Path) -> None:
    node.bench.open(collectors=f'{NO_MODEL}wall = "hwmon"')
    node.tick()
    node.tick()
    before_j = node.rest_j()
    node.draw(-1)
    for _ in range(20):
        node.tick()
    assert node.rest_j() == pytest.approx(before_j, abs=160)
    samples = node.bench.page()
    assert total(samples, "wattribute_source_up", source="wall") == 0
    node.draw(153_000_000)
    for _ in range(20):
        node.tick()
    assert total(node.bench.page(), "wattribute_source_up", source="wall") == 1
    node.bench.kill()
    with read_only(tmp_path / "state") as ledger:
        gaps = [(row.kind, row.cause) for row in ledger.gaps()]
    assert ("rest", "absent") in gaps
    node.bench.open()


def test_a_meter_that_is_named_and_not_there_stops_the_start(tmp_path: Path) -> None:
    for wall, fix in (("hwmon", "modprobe acpi_power_meter"), ("psys", 'collectors.wall = "hwmon"')):
        config = Config(collectors=Collectors(wall=wall), paths=Paths(sys=str(tmp_path)))  # type: ignore[arg-type]
        with pytest.raises(SensorUnavailable, match=fix):
            open_wall(config, SystemClock(), Sensors())
    with pytest.raises(SensorUnavailable, match="2 psys zones"):
        the_psys([Domain(kind="psys", id=name) for name in ("psys", "psys-1")])


def test_a_bmc_is_asked_off_the_tick_and_at_its_own_pace(
    node: Node, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    """One that doesn't answer stops nothing: what lies between is a gap, and the next answers begin anew."""
    with Redfish() as bmc:
        node.bench.text = f'[wall]\nurl = "{bmc.url}"\n'
        node.bench.open(collectors=f'{NO_MODEL}wall = "redfish"')
        (source,) = [one for one in node.bench.node._rounds._sources if one.name == "wall"]

        def wait() -> None:
            until_s = time.monotonic() + 5
            while not source.answered and time.monotonic() < until_s:
                time.sleep(0.002)

        def ticks(seconds: int) -> None:
            for _ in range(0, seconds, 5):
                node.tick(5)
                wait()

        node.tick()
        wait()
        node.bench.start("a", worker.pid)
        ticks(35)
        asked = [path for path, _ in bmc.asked if path.endswith("/Power")]
        assert len(asked) == 5  # to see what there is, and every 10 s
        assert node.rest_j() == pytest.approx(3000, abs=8)
        assert node.bench.receipt("a")["boundary"]["missing"] == []
        bmc.trouble = lambda answering: answering.reply(503, "{}")
        ticks(60)
        assert total(node.bench.page(), "wattribute_source_up", source="wall") == 0
        assert node.rest_j() == pytest.approx(3000, abs=8)
        bmc.trouble = None
        ticks(80)
        assert total(node.bench.page(), "wattribute_source_up", source="wall") == 1
        assert 4000 <= node.rest_j() <= 13000
    assert "the BMC answers 503" in caplog.text


class SlowChip:
    """Answers when it is let, as of the moment at which it was asked."""

    name = "wall"

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.may = threading.Semaphore(0)

    def read(self) -> list[PowerReading]:
        at_ns = self.clock.monotonic_ns()
        self.may.acquire()
        return [PowerReading(domain=Domain(kind="psys", id="hwmon"), at_ns=at_ns, power_uw=1)]

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("pace_s", "asked"), [(0, [1000, 1001, 1002, 1003, 1004]), (2, [1000, 1002, 1004])])
def test_a_chip_that_answers_after_the_tick_is_asked_at_each(pace_s: int, asked: list[int]) -> None:
    """Else its powers would be 2 s apart, and a tick's jitter makes that more than is bridged; so is a pace's."""
    clock = HandClock()
    chip = SlowChip(clock)
    source = WallSource(chip, clock, deadline_ns=S, pace_ns=pace_s * S)
    seen: list[int] = []
    for _ in range(6):
        source.request()
        seen += [round(reading.at_ns / S) for reading in source.collect(0)]
        chip.may.release()
        until_s = time.monotonic() + 5
        while not source.answered and time.monotonic() < until_s:
            time.sleep(0.001)
        clock.pass_(0.9999 if clock.boot_ns % S == 0 else 1.0001)
    source.close()
    assert seen[: len(asked)] == asked


def test_an_in_process_node_leaves_the_wall_alone(tmp_path: Path) -> None:
    """What a job sees of a node that it shares isn't its own to split."""
    config = Config(collectors=Collectors(wall="hwmon", nvml="off"), paths=Paths(sys=str(tmp_path)))
    sensing = sense(config, SystemClock(), "in-process")
    for source in sensing.sensors.sources:
        source.close()
    sensing.cpu.close()
    assert sensing.sensors.rest is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[collectors]\nwall = "redfish"', "needs wall.url"),
        ('[collectors]\nwall = "redfish"\n[wall]\nurl = "http://10.0.0.5"', "in the clear"),
        ('[collectors]\nwall = "redfish"\n[wall]\nurl = "https://me:secret@bmc"', r"https://\*\*\*@bmc"),
        ('[collectors]\nwall = "hwmon"\n[wall]\nurl = "https://10.0.0.5"', 'is for collectors.wall = "redfish"'),
        ('[collectors]\nwall = "psys"\nrapl = "off"', 'set collectors.rapl = "powercap"'),
    ],
)
def test_a_configuration_that_would_not_be_obeyed_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "w.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as raised:
        load(path, {}, {})
    assert "secret" not in str(raised.value)
