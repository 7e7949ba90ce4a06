"""The agent's page in a real browser: what it draws, says and asks for, and how it takes what it is given."""

import dataclasses
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.doubles.powercap import PowercapTree
from tests.doubles.powerlaws import CpuLaw, node_cpu_ns
from tests.e2e.browser import Browser, browsing
from tests.e2e.running import IDLE_W, W_PER_CORE, RunningAgent, total
from tests.exporters.snapshots import jobs, product, snapshot, totals

from wattribute.agent.client import Client
from wattribute.agent.core.model import Job, Snapshot
from wattribute.exporters.page import pages
from wattribute.exporters.prometheus import PrometheusPage
from wattribute.exporters.web import WebServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

BURNERS = [sys.executable, "-S", str(Path(__file__).with_name("burners.py"))]
MORE = """
[jobs]
slurm = "off"
kubernetes = "off"
containers = "off"
[[product]]
id = "iks"
kind = "platform"
scope = "node"
overhead_g_per_min = 6.0
[[product]]
id = "llama"
kind = "model"
runs_on = ["iks"]
scope = "node"
"""
ROW = "document.querySelector('#jobs tbody tr')"
ROWS = "[...document.querySelectorAll('#jobs tbody tr')]"
HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 2">',
    "abc\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
    "w" * 128,
    "שלום עולם",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """An agent that measures two jobs, of which each burns CPU time."""
    folder = tmp_path_factory.mktemp("agent")
    with ExitStack() as stack:
        tree = stack.enter_context(PowercapTree(folder / "sys"))
        zone = tree.add_zone("package-0", limits_uw=(200_000_000,))
        stack.enter_context(tree.running({zone: CpuLaw(IDLE_W, W_PER_CORE, node_cpu_ns())}))
        agent = RunningAgent(folder, folder / "sys", interval_s=0.2, more=MORE)
        stack.callback(agent.close)
        agent.start()
        yield agent


@contextmanager
def working(agent: RunningAgent) -> Iterator[None]:
    """Two jobs that run until the end of the block."""
    client = Client.find({"WATTRIBUTE_AGENT__SOCKET": str(agent.socket)})
    assert client is not None
    with ExitStack() as stack:
        stack.callback(client.close)
        for name, duty, fields in (("busy", 0.3, {"product_id": "llama"}), ("quiet", 0.05, {"phase": "data"})):
            process = subprocess.Popen([*BURNERS, "steady", "60", str(duty)], stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            client.call("job.start", 5.0, job_id=name, member="m", pid=process.pid, **fields)
        yield


def test_two_jobs_live(agent: RunningAgent, browser: Browser) -> None:
    with working(agent):
        browser.show(f"{agent.url}/")
        browser.until(f"{ROWS}.length === 2 && {ROWS}.every((row) => row.cells[4].textContent.endsWith('W'))")
        shown = "document.querySelector('#power-jobs .legend').textContent"
        browser.until(f"{shown}.includes('busy') && {shown}.includes('quiet')")
        browser.until(_drawn("power-domains", "--cpu"))
        browser.until(_drawn("grams-terms", "--platform"))
        assert browser.eval("document.querySelector('#state').textContent") == "live"
    browser.until(f"{ROWS}.every((row) => row.classList.contains('ended'))")
    _says_what_metrics_say(agent, browser)
    _sorts(browser)
    _opens(browser)
    for width in (1280, 700, 360):
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        assert browser.until(f"innerWidth === {width} && document.documentElement.scrollWidth") <= width
        assert browser.eval(
            "(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)(document.querySelector('#jobs'))"
        )
    assert browser.complaints() == []
    assert {url.removeprefix(agent.url).partition("/")[0] for url in browser.requested()} == {""}
    _comes_back(agent, browser)


def _drawn(figure: str, colour: str) -> str:
    """Whether a chart's canvas has pixels of a layer's colour."""
    return f"""(() => {{
      const canvas = document.querySelector('#{figure} canvas');
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {{ willReadFrequently: true }});
      copy.drawImage(canvas, 0, 0);
      const wanted = getComputedStyle(document.documentElement).getPropertyValue('{colour}').trim();
      const [r, g, b] = [1, 3, 5].map((at) => parseInt(wanted.slice(at, at + 2), 16));
      const {{ data }} = copy.getImageData(0, 0, canvas.width, canvas.height);
      let found = 0;
      for (let at = 0; at < data.length; at += 4) found += data[at] === r && data[at + 1] === g && data[at + 2] === b;
      return found > 20;
    }})()"""


def _says_what_metrics_say(agent: RunningAgent, browser: Browser) -> None:
    """The jobs are over, so that their figures stand still: each cell is its series, as the page writes numbers."""
    samples = agent.samples()
    for job_id in ("busy", "quiet"):
        energy_uj = int(total(samples, "wattribute_job_energy_joules_total", job_id=job_id) * 10**6)
        grams = [
            int(total(samples, f"wattribute_job_{name}_grams_total", job_id=job_id) * 10**9)
            for name in ("jsce", "asce")
        ]
        browser.until(f"""(async () => {{
          const {{ energy, mass }} = await import('/page/format.js');
          const row = {ROWS}.find((tr) => tr.textContent.includes('{job_id}'));
          return [5, 6, 7].map((at) => row.cells[at].textContent).join()
            === [energy({energy_uj}), ...{grams}.map(mass)].join();
        }})()""")


def _sorts(browser: Browser) -> None:
    head = "[...document.querySelectorAll('#jobs thead th')].find((th) => th.textContent === 'energy')"
    first = f"{ROW}.querySelector('bdi').textContent"
    for order, expected in (("descending", "busy"), ("ascending", "quiet")):
        browser.eval(f"{head}.querySelector('button').click()")
        assert browser.eval(f"{head}.getAttribute('aria-sort')") == order
        assert browser.eval(first) == expected


def _opens(browser: Browser) -> None:
    """A row's terms, by its button: seven of them, and the four sums."""
    browser.eval(f"{ROW}.querySelector('button').click()")
    assert browser.eval(f"{ROW}.querySelector('button').getAttribute('aria-expanded')") == "true"
    names = browser.eval(
        "[...document.querySelector('.more .small').tBodies[0].rows].map((row) => row.cells[0].innerText)"
    )
    assert names[7:] == ["JSC", "JSCe", "ASC", "ASCe"]
    assert len(names) == 11
    assert browser.eval("document.querySelectorAll('.more .bar span').length") == 7
    browser.eval(f"{ROW}.querySelector('button').focus()")
    browser.eval("document.querySelector('#jobs thead button').click()")  # it keeps the focus while rows move
    assert browser.eval("document.activeElement.getAttribute('aria-expanded')") == "true"


def _comes_back(agent: RunningAgent, browser: Browser) -> None:
    agent.kill()
    browser.until("document.querySelector('#state').textContent.startsWith('No answer since')")
    agent.start()
    browser.until("document.querySelector('#state').textContent === 'live'")
    assert browser.eval("document.querySelectorAll('#jobs tbody tr').length") >= 2


@contextmanager
def served(shown: Snapshot, problem: Callable[[], str] = str) -> Iterator[str]:
    """The page over a snapshot, from a thread; behind a path, as a proxy may have it."""
    metrics = PrometheusPage()
    metrics.publish(shown)
    with selectors.DefaultSelector() as selector:
        routes = {f"/nodes/a{path}": route for path, route in pages(metrics, problem).items()}
        server = WebServer(selector, "127.0.0.1", 0, routes)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                for key, mask in selector.select(0.05):
                    key.data(mask)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.port}/nodes/a/"
        finally:
            over.set()
            thread.join()
            server.close()


def test_names_are_text_whatever_they_are(browser: Browser) -> None:
    names = [*HOSTILE]
    evil = [
        dataclasses.replace(
            totals(Job(id=name, product_id=name, phase=name, user=name, parent_job_id=name)), gpus=(name,)
        )
        for name in names
    ]
    shown = snapshot(evil, products=[product(name) for name in names], node_id=names[0])
    with served(shown, lambda: names[1]) as url:
        browser.show(url, width=360)
        browser.until(f"document.querySelectorAll('#jobs tbody tr').length === {len(names)}")
        browser.eval("document.querySelectorAll('button.open').forEach((button) => button.click())")
        assert browser.eval("window.hacked") is None
        assert browser.eval("document.querySelectorAll('img, body script').length") == 0
        found = browser.eval("[...document.querySelectorAll('#jobs .open bdi')].map((name) => name.textContent)")
        assert sorted(found) == sorted(names)
        assert browser.eval("document.documentElement.scrollWidth") <= 360
        said = browser.eval("document.querySelector('#alerts').textContent")
        assert names[1] in said
        assert "modprobe nvidia" in said  # a source that is down, with what mends it
        text = browser.eval("document.body.innerText")
        assert not any(wrong in text for wrong in ("NaN", "undefined", "null", "[object"))


def test_without_a_job_it_says_how_to_start_one(browser: Browser) -> None:
    with served(snapshot([], products=[])) as url:
        browser.show(url)
        browser.until("document.querySelector('#no-jobs')?.checkVisibility()")
        assert "wattribute run" in browser.eval("document.querySelector('#no-jobs').textContent")
        assert not browser.eval("document.querySelector('#jobs table').checkVisibility()")


def test_jobs_that_have_left_are_still_in_the_sums(browser: Browser) -> None:
    with served(snapshot([totals(Job(id="_retired", product_id="p"), info=False)])) as url:
        browser.show(url)
        browser.until("document.querySelectorAll('#jobs tfoot tr').length === 4")
        assert browser.eval("document.querySelector('#jobs table').checkVisibility()")
        assert not browser.eval("document.querySelector('#no-jobs').checkVisibility()")


def test_recovered_is_what_users_were_billed_for(browser: Browser) -> None:
    """As `product epc` says it: what nobody was there to pay isn't recovered."""
    one = product("m", epc_own_ng=10**12)
    one = dataclasses.replace(one, billed_ng={"product": 2 * 10**9}, untaxed_ng={"product": 10**9})
    with served(snapshot([], products=[one])) as url:
        browser.show(url)
        browser.until("document.querySelectorAll('#products tbody tr').length === 1")
        cells = browser.eval("[...document.querySelectorAll('#products tbody td')].map((cell) => cell.textContent)")
        assert cells[4:7] == ["2 g", "2 g", "1 g"]  # recovered here, billed, untaxed


def test_of_many_jobs_the_table_has_some_and_the_sum_of_the_rest(browser: Browser) -> None:
    with served(snapshot(jobs(300))) as url:
        browser.show(url)
        browser.until("document.querySelectorAll('#jobs tbody tr').length === 200")
        assert browser.eval("document.querySelector('#jobs tfoot').rows[0].cells[0].textContent") == "100 more jobs"


def test_numbers_for_a_reader(browser: Browser) -> None:
    """Three figures, the unit that fits; a dash for what isn't known."""
    with served(snapshot([])) as url:
        browser.show(url)
        browser.until("location.href !== 'about:blank' && document.readyState === 'complete'")
        cases = {
            "energy(0)": "0 J",
            "energy(1234567)": "1.23 J",
            "energy(999999)": "1 J",
            "energy(1.5e9)": "1.5 kJ",
            "energy(2.5e12)": "2.5 MJ",
            "energy(3.6e12)": "1 kWh",
            "energy(12)": "12 µJ",
            "energy(3.6e18)": "1,000 MWh",
            "energy(null)": "—",
            "mass(NaN)": "—",
            "mass(undefined)": "—",
            "mass(999999999)": "1 g",
            "mass(-1500000000)": "-1.5 g",
            "mass(42e12)": "42 kg",
            "power(0.0004)": "400 µW",
            "power(1250)": "1.25 kW",
            "percent(1, 3)": "33.3 %",
            "percent(1, 1e6)": "<0.1 %",
            "percent(0, 0)": "—",
            "percent(5, 5)": "100 %",
            "duration(5.25)": "5.3 s",
            "duration(3661)": "1 h 1 min",
            "duration(86400 * 3)": "3 d",
            "figures(0.000123)": "0.000123",
        }
        names = "{ duration, energy, figures, mass, percent, power }"
        done = browser.eval(f"import('/nodes/a/page/format.js').then(({names}) => [{', '.join(cases)}])")
        assert dict(zip(cases, done, strict=True)) == cases


LATE = """
import('/nodes/a/page/history.js').then(({ History }) => {
  sessionStorage.clear();
  const history = new History();
  const look = (at, cpu, gpu, job) => history.add({
    node_id: 'n', interval_s: 1, terms: ['operation'], booked_s: at, booked_unix_s: at, taken_unix_s: at,
    read_s: { cpu: cpu.at, gpu: gpu.at },
    node: {
      energy_uj: { cpu: { measured: cpu.uj }, gpu: { measured: gpu.uj } },
      unattributed_uj: { cpu: {}, gpu: {} }, gco2e_ng: { operation: cpu.uj + gpu.uj },
    },
    jobs: [{ id: 'a', energy_uj: { cpu: [0], gpu: [job] }, started_unix_s: 0 }],
    sums: { shown: { terms_ng: [cpu.uj + gpu.uj] } }, agent: { energy_uj: 0, cpu_ns: 0 },
  });
  const told = [];
  for (const looked of [
    look(10, { at: 10, uj: 0 }, { at: 10, uj: 0 }, 0),
    look(11, { at: 11, uj: 5e6 }, { at: 10, uj: 0 }, 0),
    look(12, { at: 12, uj: 10e6 }, { at: 11.5, uj: 150e6 }, 75e6),
    look(13, { at: 13, uj: 15e6 }, { at: 13, uj: 300e6 }, 150e6),
  ]) told.push(looked);
  const [first, second] = history.samples;
  const ngPerS = Math.round(second.inventory * 1e9 / 3600);
  look(20, { at: 20, uj: 50e6 }, { at: 13, uj: 300e6 }, 150e6);
  const { domains, unread, node } = history.rates;
  return [told, [domains, unread, node], first.node, first.jobs.a, second.node, second.jobs.a, ngPerS];
})
"""


def test_a_sensor_that_is_late_makes_no_spike(browser: Browser) -> None:
    """A CPU of 5 W and a GPU of 100 W, half of it a job's, whose reading at 11 s comes late."""
    with served(snapshot([])) as url:
        browser.show(url)
        browser.until("location.href !== 'about:blank' && document.readyState === 'complete'")
        told, lost, *powers, ng_per_s = browser.eval(LATE)
    assert told == [True, False, True, True]  # the second look says nothing yet
    assert powers == [105, 50, 105, 50]
    assert ng_per_s == 105_000_000
    # The GPU then says nothing for 7 s: its power isn't 0, it isn't known.
    assert lost == [{"cpu measured": 5, "gpu measured": None}, ["gpu"], 5]


MANY = """
import('/nodes/a/page/history.js').then(({ History, drawn }) => {
  sessionStorage.clear();
  const names = [...Array(20).keys()].map((at) => (at ? `j${at}` : 'constructor'));
  const look = (history, at) => history.add({
    node_id: 'n', interval_s: 1, terms: [], booked_s: at, booked_unix_s: at, taken_unix_s: at, read_s: { cpu: at },
    node: { energy_uj: { cpu: { measured: at * 1e9 } }, unattributed_uj: { cpu: {} }, gco2e_ng: {} },
    jobs: names.map((id, rank) => ({
      id, energy_uj: { cpu: [at * 1e6 * (20 - rank) + (at > 2 && rank > 9 ? 1e9 : 0)] }, started_unix_s: 0,
    })),
    sums: {}, agent: { energy_uj: 0, cpu_ns: 0 },
  });
  const first = new History();
  for (const at of [1, 2, 3]) look(first, at);
  first.save();
  const again = new History();
  for (const at of [4, 5]) look(again, at);
  const told = (history, id) => history.samples.filter(({ hole }) => !hole).map((sample) => drawn(sample, id));
  return [told(first, 'constructor'), told(again, 'constructor'), first.most(1), told(again, 'toString')];
})
"""


def test_what_a_job_drew_is_told_also_while_many_others_draw_more(browser: Browser) -> None:
    with served(snapshot([])) as url:
        browser.show(url)
        browser.until("document.getElementById('state')?.textContent === 'live'")
        first, again, most, nobody = browser.eval(MANY)
    assert first == [20, 20]
    assert again == [20, 20, 20]
    assert most == ["j10"]
    assert set(nobody) == {0}
