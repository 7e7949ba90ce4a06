"""When a source is up: what it said last, not that it said nothing."""

from dataclasses import replace

import pytest
from tests.doubles.node_bench import HandClock

from wattribute.agent.core.model import Domain, EnergyReading, Fault, Gap, Reading
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


def test_time_that_several_devices_lack_is_told_once() -> None:
    source: Source[Reading] = Source(Scripted(), HandClock(), deadline_ns=1, threaded=False)
    for gpu, start_ns, end_ns in ((1, 10, 20), (2, 10, 20), (3, 8, 15), (1, 30, 35), (2, 31, 40)):
        domain = Domain(kind="gpu", id=f"GPU-{gpu}")
        source.note(
            Gap(
                domain=domain,
                start_ns=start_ns,
                end_ns=end_ns,
                cause="reset",
                lower_uj=0,
                upper_uj=None,
                quality="measured",
            )
        )
    assert (source.health().gap_ns, source.health().resets) == (12 + 10, 5)


def test_a_source_whose_parts_are_all_lost_stays_down_while_none_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "wattribute")
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
    assert caplog.text.count("reads again") == 1


class OfTwo(Scripted):
    """Tells its devices as its last read left them."""

    def __init__(self, *answers: tuple[list[Reading], dict[str, bool]]) -> None:
        super().__init__(*[readings for readings, _ in answers])
        self.states = iter([states for _, states in answers])
        self.state: dict[str, bool] = {}

    def read(self) -> list[Reading]:
        self.state = next(self.states)
        return super().read()

    def devices(self) -> dict[str, bool]:
        return self.state


def test_a_lost_device_is_told_of_while_it_isnt_asked_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    other = replace(READ, domain=Domain(kind="gpu", id="GPU-2"))
    one_lost = {"GPU-1": False, "GPU-2": True}
    clock = HandClock()
    answers: list[tuple[list[Reading], dict[str, bool]]] = [
        ([LOST, other], one_lost),
        ([other], one_lost),
        ([LOST, other], one_lost),
        ([READ, other], {"GPU-1": True, "GPU-2": True}),
    ]
    source: Source[Reading] = Source(OfTwo(*answers), clock, deadline_ns=1, threaded=False)
    said = []
    for _ in answers:
        clock.pass_(1)
        source.request()
        source.collect(0)
        health = source.health()
        said.append((health.up, health.why, dict(health.devices)))
    assert said == [(True, LOST.cause, one_lost)] * 3 + [(True, "", {"GPU-1": True, "GPU-2": True})]
    assert caplog.text.count(LOST.cause) == 1
    source.release(clock.monotonic_ns() + 1, "asked for")
    assert (source.health().released, source.health().devices) == (True, {})
