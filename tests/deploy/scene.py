"""One node's short life with known joules, in a real agent under real scrapes: quiet, work, a restart, a kill.

The package's power follows CPU time and the GPU draws a constant power between two moments, so that what the node used
is known to the microjoule, whatever the scheduler does.
"""

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deploy.stores import Scrape, Store, exact_s
from tests.doubles.engine_server import EngineServer, vllm
from tests.doubles.nvml import GpuDouble, NvmlDouble
from tests.doubles.nvml import Process as OnGpu
from tests.doubles.powercap import PowercapTree, Zone
from tests.doubles.powerlaws import CpuLaw, Law, node_cpu_ns
from tests.e2e.running import IDLE_W, W_PER_CORE, RunningAgent, total

from wattribute.agent.client import Client

BURNERS = [sys.executable, "-S", str(Path(__file__).parents[1] / "e2e" / "burners.py")]
SERVING = [sys.executable, str(Path(__file__).with_name("serving.py"))]
INTERVAL_S = 0.2
SETTLED_S = 1.5  # longer than rules pause: what a store finds of a moment changes with the next sample
POLL_S = 0.2
SCRAPE = "200ms"
UP = 'up{job="wattribute"} == 1'
NOT_AT_REST = {"job:wattribute_job_platform_tax_grams:rate5m"}
"""Rules about running jobs."""
DCGM = """DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="{uuid}"}} {power_w}
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0",UUID="{uuid}"}} {energy_mj}
"""
GPU_W, DRAM_W = 300.0, 4.0
GROWING = (
    'wattribute_product_units_total{product_id="llama",unit="token"}',
    "wattribute_product_stage_joules_total",
    "wattribute_product_receipt_joules_count",
)
CONFIGURATION = """
[jobs]
slurm = "off"
kubernetes = "off"
containers = "off"
[[embodied]]
component = "server"
kgco2e = 1200
lifetime_years = 4
[[product]]
id = "iks"
kind = "platform"
scope = "node"
overhead_g_per_min = 6.0
epc_kgco2e = 100
lifetime_years = 6
[[product]]
id = "llama"
kind = "model"
runs_on = ["iks"]
scope = "node"
epc_kgco2e = 1.0
lifetime_years = 0.01
[[product]]
id = "chat"
kind = "service"
runs_on = ["iks"]
scope = "node"
[[product]]
id = "vision"
kind = "model"
scope = "node"
[[engine]]
url = "{engine}"
kind = "vllm"
product = "chat"
interval_s = 0.2
"""


@dataclass
class Scene:
    """What was seen: moments (Unix seconds) to ask about, and the truth in uJ. `receipts` are the agent's, by job."""

    agent: RunningAgent
    began_s: float = 0.0
    quiet_s: float = 0.0
    working_s: float = 0.0
    ended_s: float = 0.0
    restarted_s: float = 0.0
    killed_s: float = 0.0
    true_uj: dict[str, int] = field(default_factory=dict)
    receipts: dict[str, Any] = field(default_factory=dict)

    @property
    def rest(self) -> dict[str, float]:
        """When everything is over and stays as it is: after the end, a restart, a kill -9."""
        return {"ended": self.ended_s, "restarted": self.restarted_s, "killed": self.killed_s}

    @property
    def moments(self) -> dict[str, float]:
        """Those, and when all jobs were at work."""
        return {"working": self.working_s, **self.rest}

    @property
    def receipt_uj(self) -> dict[str, int]:
        """Each job's energy by its receipt."""
        return {job_id: receipt["energy_uj"] for job_id, receipt in self.receipts.items()}

    def receipt_ng(self, cost: str) -> dict[str, int]:
        """Each job's `jsc`, `jsce`, `asc` or `asce` by its receipt."""
        return {job_id: round(receipt["gco2e"][cost] * 1e9) for job_id, receipt in self.receipts.items()}


def wait_until(done: Callable[[], bool], what: Callable[[], str], seconds: float = 20.0) -> None:
    until_s = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until_s, what()
        time.sleep(POLL_S)


def agreed(stores: Sequence[Store], *exprs: str, recorded: Collection[str] = (), settled_s: float = SETTLED_S) -> float:
    """A moment at which each of these has an answer in each store, `settled_s` ago, so that it will stay so.

    `recorded` are names of series that have to be there as well.
    """
    moment_s, unmet = 0.0, [""]

    def so() -> bool:
        nonlocal moment_s, unmet
        moment_s, unmet = exact_s(time.time() - settled_s), []
        for store in stores:
            store.flush()
            unmet += [f"{store.name}: {expr}" for expr in exprs if not store.query(expr, moment_s)]
            if recorded and not unmet:
                found = store.query('count by (__name__) ({__name__=~".+:.+"})', moment_s)
                missing = set(recorded).difference(one.labels["__name__"] for one in found)
                unmet += [f"{store.name}: {name}" for name in missing]
        return not unmet

    wait_until(so, lambda: ", ".join(unmet))
    return moment_s


@contextmanager
def playing(
    folder: Path,
    stores: Callable[[Sequence[Scrape]], Sequence[Store]],
    recorded: Collection[str],
    jobless: Collection[str],
) -> Iterator[Scene]:
    """Plays the scene before the `stores` opened for its scrapes; its agent runs on until the end of the block.

    Jobs work until rules have `recorded` series of all these names, and what is looked at later has them again. They
    begin when there are all that are `jobless`.
    """
    with ExitStack() as stack:
        tree = stack.enter_context(PowercapTree(folder / "sys"))
        tree.say_cpu()
        below = tree.add_package()
        assert below.dram is not None
        (folder / "nvml").mkdir()
        driver = stack.enter_context(NvmlDouble(folder / "nvml"))
        (gpu,) = driver.gpus
        gpu.power_w, gpu.energy_uj = 0, 0
        engine = stack.enter_context(EngineServer(vllm(prefill=0, decode=0)))
        more = CONFIGURATION.format(engine=engine.url)
        agent = RunningAgent(folder, folder / "sys", interval_s=INTERVAL_S, more=more)
        stack.callback(agent.close)
        # The state of this agent alone: `jobs` lists what is kept where no agent was, too.
        here = {"WATTRIBUTE_AGENT__STATE_DIR": str(agent.state_dir)}
        agent.environment.update(driver.env, **here, WATTRIBUTE_COLLECTORS__NVML="auto")
        scene = Scene(agent, began_s=time.time())
        agent.start(wait=False)
        dcgm = stack.enter_context(EngineServer())
        urls = {"wattribute": agent.url, "dcgm": dcgm.url.removesuffix("/metrics")}
        opened = stores([Scrape(job, [(url.removeprefix("http://"), {})], SCRAPE) for job, url in urls.items()])
        agent.wait()
        scene.quiet_s = agreed(opened, UP, recorded=jobless)

        laws: dict[Zone, Law] = {below.package: CpuLaw(IDLE_W, W_PER_CORE, node_cpu_ns()), below.dram: lambda _: DRAM_W}
        with tree.running(laws), _growing(engine, dcgm, gpu):
            gpu.power_w = GPU_W
            scene.working_s = _work(agent, gpu, opened, recorded)
            driver.freeze()  # the GPU's counter stands still from here
        scene.true_uj = {
            "cpu": below.package.true_uj,
            "dram": below.dram.true_uj,
            "gpu": gpu.energy_uj // 1000 * 1000,  # the driver tells millijoules
        }
        wait_until(lambda: _settled(agent, scene.true_uj), lambda: "what was used isn't on the page")
        scene.receipts = {one["job_id"]: one for one in json.loads(agent.run("jobs", "--json").stdout)}
        at_rest = set(recorded) - NOT_AT_REST
        scene.ended_s = _scraped(opened, at_rest)
        assert agent.stop() == 0
        agent.start()
        scene.restarted_s = _scraped(opened, at_rest)
        agent.kill()
        agent.start()
        scene.killed_s = _scraped(opened, at_rest, "max(changes(job:wattribute_job_energy_joules:sum[2s])) == 0")
        yield scene


def _work(agent: RunningAgent, gpu: GpuDouble, stores: Sequence[Store], recorded: Collection[str]) -> float:
    """Jobs of every role, until the stores have seen requests, tokens and stages grow; each ends with its process.

    The moment (Unix seconds) when all were still at work.
    """
    client = Client.find({"WATTRIBUTE_AGENT__SOCKET": str(agent.socket)})
    assert client is not None
    with ExitStack() as stack:
        running: list[subprocess.Popen[bytes]] = []

        def start(job_id: str, duty: float, **fields: object) -> int:
            process = subprocess.Popen([*BURNERS, "steady", "60", str(duty)], stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            running.append(process)
            client.call("job.start", 5.0, job_id=job_id, member="m", pid=process.pid, **fields)
            return process.pid

        serving = subprocess.Popen([*SERVING, "llama"], env=agent.environment, stdin=subprocess.PIPE)
        stack.callback(serving.wait)
        stack.callback(serving.stdin.close if serving.stdin else serving.kill)
        command = agent.command("run", "--job-id", "batch", "--uses", "llama", "--label", "team=nlp", "--")
        batch = subprocess.Popen([*command, *BURNERS, "brief", "200"], env=agent.environment, stderr=subprocess.DEVNULL)
        stack.callback(batch.wait)
        start("control-plane", 0.1, product_id="iks", role="platform")
        start("serve-chat", 0.1, product_id="chat", phase="inference")
        start("prepare", 0.1, product_id="vision", role="creation", phase="data")
        train = start("train-7", 0.2, product_id="vision", role="creation", phase="training", uses=("iks",))
        gpu.processes(OnGpu(pid=train, sm_percent=80))
        start("tune", 0.1, product_id="llama", role="retraining", nodes=2)
        growing = [f"sum(changes({one}[1m])) > 3" for one in GROWING]
        working_s = agreed(stores, UP, *growing, recorded=recorded)
        running[2].terminate()  # one job ends before the others
        time.sleep(2 * INTERVAL_S)
    client.close()
    return working_s


@contextmanager
def _growing(engine: EngineServer, dcgm: EngineServer, gpu: GpuDouble) -> Iterator[None]:
    """The engine's page, as if it served ten requests five times a second, and what dcgm-exporter says of the GPU."""
    over = threading.Event()

    def grow() -> None:
        for step in itertools.count(1):
            engine.page = vllm(10 * step, 300 * step, 80 * step, running=1, prefill=0.1 * step, decode=0.3 * step)
            dcgm.page = DCGM.format(uuid=gpu.uuid, power_w=gpu.power_w, energy_mj=gpu.energy_uj // 1000)
            if over.wait(0.2):
                return

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _settled(agent: RunningAgent, true_uj: dict[str, int]) -> bool:
    page = agent.samples()
    known = all(
        total(page, "wattribute_node_energy_joules_total", domain=domain) * 10**6 == uj
        for domain, uj in true_uj.items()
    )
    running = total(page, "wattribute_product_running_jobs") or total(page, "wattribute_product_unsettled_joules")
    return known and not running


def _scraped(stores: Sequence[Store], recorded: Collection[str], *exprs: str) -> float:
    """A moment by which every store has the page as it is now, and rules have seen it."""
    last = f"timestamp(wattribute_agent_ticks_total) > {time.time() + 2 * INTERVAL_S}"
    return agreed(stores, UP, last, *exprs, recorded=recorded)
