"""Takes the pictures of docs/page.md: the page in Chromium, over a real agent whose sensors are the tests' doubles.

    .venv/bin/python docs/screenshots.py [SECONDS]

Jobs burn a little CPU time, and the doubles make a busy node of it: what the pictures show is true of no machine.
"""

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT))  # the doubles and the browser are the tests'

from tests.doubles.nvml import NvmlDouble, Process  # noqa: E402
from tests.doubles.powercap import PowercapTree  # noqa: E402
from tests.doubles.powerlaws import CpuLaw, node_cpu_ns  # noqa: E402
from tests.e2e.browser import browsing  # noqa: E402
from tests.e2e.running import RunningAgent  # noqa: E402

from wattribute.agent.client import Client  # noqa: E402

SECONDS = 180.0
BURNERS = [sys.executable, "-S", str(ROOT / "tests" / "e2e" / "burners.py")]
SERVING = [sys.executable, str(ROOT / "tests" / "deploy" / "serving.py")]
CONFIGURATION = """
[jobs]
slurm = "off"
kubernetes = "off"
containers = "off"
[modelled]
dram_w_per_gib = 1.5
[[embodied]]
component = "server"
kgco2e = 1200
lifetime_years = 4
[[embodied]]
component = "gpu"
kgco2e = 300
lifetime_years = 4
[[product]]
id = "iks-dallas"
kind = "platform"
scope = "node"
overhead_g_per_min = 0.4
epc_kgco2e = 100
lifetime_years = 6
[[product]]
id = "bert-base"
kind = "model"
runs_on = ["iks-dallas"]
scope = "node"
epc_kgco2e = 652
lifetime_years = 5
[[product]]
id = "llama-3-8b"
kind = "model"
runs_on = ["iks-dallas"]
scope = "node"
epc_kgco2e = 390
lifetime_years = 3
[[product]]
id = "ranker"
kind = "service"
runs_on = ["iks-dallas"]
scope = "node"
"""
# job, GPU, its watts, how much of them comes and goes, how busy the CPU, from and until when in parts of the whole time
JOBS: tuple[tuple[dict[str, object], int | None, float, float, float, float, float], ...] = (
    ({"job_id": "bert-ft-7", "product_id": "bert-base", "phase": "training"}, 0, 430, 0.04, 0.05, 0, 1),
    ({"job_id": "eval-nightly", "product_id": "bert-base", "phase": "offline-evaluation"}, 2, 260, 0.1, 0.03, 0.1, 0.7),
    ({"job_id": "search-lr-12", "product_id": "ranker", "phase": "experimentation"}, 2, 170, 0.2, 0.03, 0.45, 1),
    ({"job_id": "tokenise-wiki", "product_id": "wikipedia", "phase": "data"}, None, 0, 0, 0.1, 0, 1),
    ({"job_id": "ingress", "product_id": "iks-dallas", "role": "platform"}, None, 0, 0, 0.04, 0, 1),
)
SERVED, SERVED_GPU, SERVED_W = "llama-3-8b", 1, 210.0
IDLE_W = 58.0  # of a GPU that nobody uses


def play(agent: RunningAgent, driver: NvmlDouble, stack: ExitStack, seconds: float) -> Callable[[], None]:
    """Starts what there is at the beginning; what is returned brings it on to now."""
    client = Client.find({"WATTRIBUTE_AGENT__SOCKET": str(agent.socket)})
    assert client is not None
    stack.callback(client.close)
    serving = subprocess.Popen([*SERVING, SERVED], env=agent.environment, stdin=subprocess.PIPE)
    stack.callback(serving.wait)
    stack.callback(serving.terminate)
    running: dict[int, subprocess.Popen[bytes]] = {}
    began_s = time.monotonic()

    def start(number: int) -> None:
        job, _, _, _, duty, _, _ = JOBS[number]
        process = subprocess.Popen([*BURNERS, "steady", str(2 * seconds), str(duty)], stdout=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        running[number] = process
        client.call("job.start", 5.0, member="m", pid=process.pid, **job)

    def go_on() -> None:
        at_s = time.monotonic() - began_s
        watts = [IDLE_W] * len(driver.gpus)
        on_gpu: list[list[Process]] = [[] for _ in driver.gpus]
        watts[SERVED_GPU] += SERVED_W * (1 + 0.35 * math.sin(at_s / 11) + 0.15 * math.sin(at_s / 2.3))
        on_gpu[SERVED_GPU].append(Process(pid=serving.pid, sm_percent=60))
        for number, (_, gpu, gpu_w, wave, _, first, last) in enumerate(JOBS):
            if first * seconds <= at_s < last * seconds + seconds * (last == 1):
                if number not in running:
                    start(number)
                if gpu is not None:
                    watts[gpu] += gpu_w * (1 + wave * math.sin(at_s / (3 + 2 * number)))
                    on_gpu[gpu].append(Process(pid=running[number].pid, sm_percent=round(gpu_w / 6)))
            elif number in running:
                running[number].terminate()
        for gpu, power_w, processes in zip(driver.gpus, watts, on_gpu, strict=True):
            gpu.power_w = power_w
            gpu.processes(*processes)

    return go_on


def shoot(agent: RunningAgent, go_on: Callable[[], None], profile: Path, seconds: float) -> None:
    """Watches for so long, then takes the pictures."""
    with browsing(profile) as browser:
        browser.show(f"{agent.url}/", width=1280, height=800)
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            go_on()
            browser.eval("0")  # takes what it has told meanwhile
            time.sleep(0.2)

        def take(name: str, width: int, height: float) -> None:
            left, top = browser.eval("[scrollX, scrollY]")
            image = browser.picture(left=left, top=top, width=width, height=height)
            (IMAGES / name).write_bytes(image)
            sys.stdout.write(f"{name}: {len(image):,} bytes\n")

        IMAGES.mkdir(exist_ok=True)
        browser.eval("document.activeElement.blur()")
        bottom = "document.querySelector('{}').getBoundingClientRect().bottom + scrollY + 16"
        take("page.webp", 1280, browser.eval(bottom.format("section[aria-labelledby=products-title]")))
        for table, name in (("jobs", "bert-ft-7"), ("products", SERVED)):
            browser.eval(
                f"[...document.querySelectorAll('#{table} .open')].find((one) => one.textContent === '{name}').click()"
            )
            browser.eval(f"document.querySelector('#{table}').parentElement.scrollIntoView()")
            height = browser.eval(f"document.querySelector('#{table} .more').getBoundingClientRect().bottom + 8")
            take(f"page-{table[:-1]}.webp", 1280, height)
            browser.eval(f"document.querySelector('#{table} .open[aria-expanded=true]').click()")
        browser.show(f"{agent.url}/", width=360, height=780, scale=2, dark=True)
        browser.until("document.querySelectorAll('#power-jobs .legend li').length > 4")
        until_s = time.monotonic() + 3
        while time.monotonic() < until_s:
            go_on()
            time.sleep(0.2)
        take("page-phone.webp", 360, 1400)


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wattribute-pictures-")))
        tree = stack.enter_context(PowercapTree(folder / "sys"))
        tree.say_cpu()
        zone = tree.add_zone("package-0", limits_uw=(200_000_000,))
        (folder / "nvml").mkdir()
        driver = stack.enter_context(NvmlDouble(folder / "nvml", gpus=3))
        for gpu in driver.gpus:
            gpu.power_w = IDLE_W
        stack.enter_context(tree.running({zone: CpuLaw(45, 30, node_cpu_ns())}))
        agent = RunningAgent(folder, folder / "sys", more=CONFIGURATION)
        settings = {"NVML": "auto", "MODELLED": "auto"}
        agent.environment.update(driver.env, **{f"WATTRIBUTE_COLLECTORS__{k}": v for k, v in settings.items()})
        agent.environment.update(
            WATTRIBUTE_AGENT__NODE_ID="gpu-node-17", WATTRIBUTE_ATTRIBUTION__GPU_IDLE_W=str(IDLE_W)
        )
        stack.callback(agent.close)
        agent.start()
        go_on = play(agent, driver, stack, seconds)
        shoot(agent, go_on, folder / "profile", seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
