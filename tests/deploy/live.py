"""Everything that live queries need, once: the node's scene and a small fleet, each in front of both stores."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deploy import asked
from tests.deploy.fleet import SimulatedFleet, simulated_fleet
from tests.deploy.scene import Scene, agreed, playing
from tests.deploy.stores import Scrape, Store, fast_rules, prometheus, victoria_metrics
from tests.doubles.many_nodes import BIG

NODES, LATE = 20, 2
SETTLED_S = 3.0
"""vmalert writes what a rule gave up to some seconds later, as of when it began."""
COMPLETE = f'job:wattribute_job_complete:bool{{job_id="{BIG}"}}'


@dataclass
class FleetSeen:
    """The truth of the simulated fleet in uJ, and two moments: with nodes missing, and all there and at rest."""

    truth: Mapping[str, int]
    missing_s: float
    complete_s: float


@dataclass
class Live:
    """`nodes` are the stores of the scene, `fleets` those of the fleet, by their names."""

    scene: Scene
    fleet: FleetSeen
    nodes: Mapping[str, Store]
    fleets: Mapping[str, Store]


@contextmanager
def playing_live(folder: Path) -> Iterator[Live]:
    """Plays both at once, since a Prometheus begins to scrape 5 s after its start; all of it runs until the end."""
    every = fast_rules(asked.RULES, folder / "rules", "1s")
    of_jobs = [path for path in every if path.name == "jobs.yml"]
    with ExitStack() as stack:

        def opened(name: str, scrapes: Sequence[Scrape], rules: Sequence[Path]) -> dict[str, Store]:
            (home := folder / name).mkdir()
            return {
                "prometheus": stack.enter_context(prometheus(home, scrapes, rules)),
                "victoria-metrics": stack.enter_context(victoria_metrics(home, scrapes, rules)),
            }

        simulated = stack.enter_context(simulated_fleet(NODES, jobs=2, late=LATE))
        fleets = opened("fleet", [simulated.scrape("1s")], of_jobs)
        nodes: dict[str, Store] = {}

        def scraping(scrapes: Sequence[Scrape]) -> Sequence[Store]:
            nodes.update(opened("node", scrapes, every))
            return list(nodes.values())

        beside = stack.enter_context(ThreadPoolExecutor(1))
        watching = beside.submit(watched, simulated, list(fleets.values()))
        (folder / "agent").mkdir()
        # With vmalert, a rule that is made of others' series has data some evaluations later.
        names = {rule.where for rule in asked.rules("record")}
        scene = stack.enter_context(playing(folder / "agent", scraping, names, asked.recorded_without_jobs()))
        yield Live(scene, watching.result(), nodes, fleets)


def watched(fleet: SimulatedFleet, stores: Sequence[Store]) -> FleetSeen:
    """Looks at the fleet while nodes are missing, lets them come, stops all growth, and looks again."""

    missing_s = agreed(stores, f"sum(up) == {NODES - LATE}", f"{COMPLETE} == 0", settled_s=SETTLED_S)
    fleet.admit()
    agreed(stores, f"sum(up) == {NODES}")
    truth, frozen_s = fleet.freeze(), time.time()
    last = f"count(timestamp(wattribute_agent_ticks_total) > {frozen_s}) == {NODES}"
    at_rest = f'changes(job:wattribute_job_energy_joules:sum{{job_id="{BIG}"}}[3s]) == 0'
    return FleetSeen(truth, missing_s, agreed(stores, last, at_rest, f"{COMPLETE} == 1", settled_s=SETTLED_S))
