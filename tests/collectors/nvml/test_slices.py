"""Whatever the instances and whoever is on them: the parts are one board, and no time is made up or taken back."""

from hypothesis import given
from hypothesis import strategies as st
from tests.collectors.nvml.pick import S, busy

from wattribute.agent.core.attribution import PPB
from wattribute.agent.core.model import ProcessId
from wattribute.collectors.nvml.processes import Processes
from wattribute.collectors.nvml.slices import Instance, SliceTime

INSTANCES = st.lists(
    st.builds(
        Instance,
        uuid=st.sampled_from(["a", "b", "c", "d"]),
        gpu_instance=st.integers(0, 3),
        slices=st.integers(0, 4),
        sms=st.integers(0, 60),
        contexts=st.dictionaries(st.integers(1, 5), st.none(), max_size=4),
    ),
    max_size=4,
    unique_by=lambda instance: instance.uuid,
)


@given(
    st.lists(st.tuples(INSTANCES, st.none() | st.dictionaries(st.integers(0, 3), st.integers(0, 10**6))), max_size=8)
)
def test_parts_and_times_never_exceed_the_board(
    reads: list[tuple[list[Instance], dict[int, int] | None]],
) -> None:
    time = SliceTime("GPU-x", Processes(lambda pid: ProcessId(pid, 1)), {})
    last: dict[ProcessId, int] = {}
    for second, (instances, activity_ppm) in enumerate(reads):
        readings = time.advance(second * S, instances, 7, activity_ppm)
        parts_ppb = [reading.held_ppb or 0 for reading in readings]
        assert min(parts_ppb) >= 0
        assert sum(parts_ppb) <= PPB
        if all(instance.contexts for instance in instances):
            assert sum(parts_ppb) == PPB
        now = busy(readings)
        assert sum(busy_ns - last.get(one, 0) for one, busy_ns in now.items()) <= S
        assert all(busy_ns >= last.get(one, 0) for one, busy_ns in now.items())
        present = {one for instance in instances for one in instance.contexts}
        last = {one: busy_ns for one, busy_ns in now.items() if one.pid in present}
