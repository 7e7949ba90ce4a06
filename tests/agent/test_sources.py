"""When a source is up: what it said last, not that it said nothing."""

from tests.doubles.node_bench import HandClock

from wattribute.agent.core.model import Domain, EnergyReading, Fault, Reading
from wattribute.agent.sources import Source

GPU = Domain(kind="gpu", id="GPU-1")
LOST = Fault(domain=GPU, at_ns=1, cause="the GPU fell off the bus", fix="reboot the node")
READ = EnergyReading(domain=GPU, at_ns=1, energy_uj=1)


class Scripted:
    name = "nvml"

    def __init__(self, *answers: list[Reading]) -> None:
        self.answers = iter(answers)

    def read(self) -> list[Reading]:
        return next(self.answers)

    def close(self) -> None:
        pass


def test_a_source_whose_parts_are_all_lost_stays_down_while_none_is_asked() -> None:
    clock = HandClock()
    source: Source[Reading] = Source(
        Scripted([READ], [LOST], [], [LOST], [], [READ], []), clock, deadline_ns=1, threaded=False
    )
    said = []
    for _ in range(7):
        clock.pass_(1)
        source.request()
        source.collect(0)
        health = source.health()
        said.append((health.up, health.why))
    down = (False, LOST.cause)
    assert said == [(True, ""), down, down, down, down, (True, ""), (True, "")]
