"""A platform on one node, its users on others: the recording rule and the shared ledger's exchange bill the same."""

from dataclasses import replace
from pathlib import Path

from tests.deploy.promtool import RULES, check, near, stored
from tests.exporters.snapshots import snapshot

from wattribute.agent.core.fleet_parts import Amounts, Key, Verdict
from wattribute.agent.core.model import EXPORTED_SLOTS, TERM_SLOT, Job, JobTotals
from wattribute.agent.core.products import Product
from wattribute.agent.core.tariff import Metered
from wattribute.agent.core.taxes import Taxes
from wattribute.agent.core.units import J_PER_KWH, NG_PER_G, NS_PER_S
from wattribute.exporters.prometheus import PrometheusPage

S = NS_PER_S
DAWN = 1_700_006_400 * S  # a full minute of Unix time
STEP_S, MINUTE_S = 20, 60
PPM = 1_000_000
IKS = Product(id="iks", kind="platform", scope="fleet")
CHAT = Product(id="chat", scope="fleet", runs_on=("iks",))
PLATFORM = Job(id="plat", product_id="iks", role="platform")
JOULES_PER_S, G_PER_KWH = 450, 480
OPERATION_NG_PER_S = JOULES_PER_S * G_PER_KWH * NG_PER_G // J_PER_KWH
COOLING_NG_PER_S = OPERATION_NG_PER_S // 5
JSC_G_PER_S = (OPERATION_NG_PER_S + COOLING_NG_PER_S) / NG_PER_G


class Node:
    """One node: its taxes, what its jobs came to, and its page."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.jobs: dict[str, Job] = {}
        self.values: dict[str, list[int]] = {}
        self.taxes = Taxes([IKS, CHAT], 0)
        self.taxes.fleet.join(name)

    def start(self, job: Job, at_ns: int) -> None:
        self.jobs[job.id] = job
        self.values.setdefault(job.id, [0] * EXPORTED_SLOTS)
        self.taxes.enter(job, at_ns, first=True)

    def end(self, job_id: str, at_ns: int) -> None:
        self.taxes.leave(self.jobs.pop(job_id), at_ns)

    def tick(self, at_ns: int) -> None:
        metered = {}
        if PLATFORM.id in self.jobs:
            amounts = OPERATION_NG_PER_S * STEP_S, COOLING_NG_PER_S * STEP_S
            metered["iks"] = Metered(platform_ng=sum(amounts))
            self.values[PLATFORM.id][TERM_SLOT["operation"]] += amounts[0]
            self.values[PLATFORM.id][TERM_SLOT["cooling"]] += amounts[1]
        due = self.taxes.settle(at_ns, DAWN + at_ns, metered)
        for closed in due.closed:
            for job_id in closed.parts:
                for (_, term), owed_ng in closed.owed(job_id).items():
                    self.values[job_id][TERM_SLOT[term]] += owed_ng

    def page(self) -> bytes:
        paid = self.taxes.paid()
        shown = [
            JobTotals(
                job=self.jobs.get(job_id, Job(id=job_id)),
                values=values,
                running=job_id in self.jobs,
                payees=paid.get(job_id, ()),
            )
            for job_id, values in self.values.items()
        ]
        page = PrometheusPage()
        page.publish(replace(snapshot([], products=[]), jobs=shown, products=self.taxes.totals()))
        return page.text()

    def billed_g(self, job_id: str) -> float:
        return self.values[job_id][TERM_SLOT["platform"]] / NG_PER_G


class Fleet:
    """Nodes that pass the same time; what the shared ledger would close is closed at once."""

    def __init__(self, *names: str) -> None:
        self.nodes = {name: Node(name) for name in names}
        self.pages: dict[str, list[bytes]] = {name: [] for name in names}
        self.at_s = 0

    def pass_minutes(self, minutes: int) -> None:
        for _ in range(minutes):
            for name, node in self.nodes.items():
                self.pages[name].append(node.page())
            for _ in range(MINUTE_S // STEP_S):
                self.at_s += STEP_S
                for node in self.nodes.values():
                    node.tick(self.at_s * S)
            self._exchange()

    def _exchange(self) -> None:
        parts: dict[Key, dict[str, Amounts]] = {}
        for name, node in self.nodes.items():
            for key, amounts in node.taxes.fleet.waiting():
                parts.setdefault(key, {})[name] = amounts
        for node in self.nodes.values():
            node.taxes.fleet.hear([Verdict(key, each) for key, each in parts.items()])


def user(job_id: str, *uses: str, weight: float = 1, product_id: str = "default") -> Job:
    return Job(id=job_id, uses=uses, product_id=product_id, weight_ppm=round(weight * PPM))


def tax_of(job_id: str) -> str:
    return f'job:wattribute_job_platform_tax_grams:rate5m{{job_id="{job_id}",product_id="iks"}}'


PLACES = [("a", "here"), ("b", "heavy"), ("b", "serves"), ("b", "wide"), ("c", "wide")]
SERIES = ("wattribute_job_weight", "wattribute_product_weight_seconds", "wattribute_product_co2e_grams")


def test_the_rule_says_what_the_ledger_bills_where_nothing_changes(tmp_path: Path) -> None:
    """Both split the same grams by the same weights: they differ by the ledger's whole nanograms (1e-8 of a part of
    a minute here) and by floats. The rule looks at five minutes and the ledger at one, so that the comparison begins
    where the window holds nothing of the start.
    """
    fleet = Fleet("a", "b", "c")
    a, b, c = fleet.nodes.values()
    a.start(PLATFORM, 0)
    a.start(user("here", "iks"), 0)
    b.start(user("heavy", "iks", weight=3), 0)
    b.start(user("serves", product_id="chat"), 0)  # what it runs on is paid too
    for node in (b, c):
        node.start(user("wide", "iks", weight=0.5), 0)  # one of weight 1 on two nodes
    fleet.pass_minutes(10)
    before = {(name, job_id): fleet.nodes[name].billed_g(job_id) for name, job_id in PLACES}
    fleet.pass_minutes(5)
    ledger = dict.fromkeys((job_id for _, job_id in PLACES), 0.0)
    for name, job_id in PLACES:
        ledger[job_id] += (fleet.nodes[name].billed_g(job_id) - before[name, job_id]) / (5 * MINUTE_S)
    assert abs(sum(ledger.values()) - JSC_G_PER_S) < 1e-9 * JSC_G_PER_S
    assert abs(ledger["heavy"] - JSC_G_PER_S * 3 / 6) < 1e-9  # weights 1 + 3 + 1 + 2 * 0.5
    tests = [near(tax_of(job_id), rate, "14m", within=1e-6 * rate) for job_id, rate in ledger.items()]
    check(tmp_path, stored(fleet.pages, *SERIES), tests, [RULES / "fleet_tax.yml"])


def test_after_a_change_the_rule_lags_by_its_window(tmp_path: Path) -> None:
    """A second user halves what the first owes: the ledger has it in that minute, the rule after five."""
    fleet = Fleet("a", "b")
    a, b = fleet.nodes.values()
    a.start(PLATFORM, 0)
    b.start(user("first", "iks"), 0)
    fleet.pass_minutes(10)
    a.start(user("second", "iks"), fleet.at_s * S)
    fleet.pass_minutes(10)
    a.end("second", fleet.at_s * S)
    fleet.pass_minutes(1)
    lagging = JSC_G_PER_S / (1 + 1 / 5)  # a fifth of the window's weight-seconds came from the second
    tests = [
        near(tax_of("first"), JSC_G_PER_S, "9m", within=1e-9),
        near(tax_of("first"), lagging, "11m", within=0.1 * lagging),
        near(tax_of("first"), JSC_G_PER_S / 2, "16m", within=1e-9),
        {"expr": tax_of("second"), "eval_time": "20m", "exp_samples": []},
    ]
    check(tmp_path, stored(fleet.pages, *SERIES), tests, [RULES / "fleet_tax.yml"])
    assert abs(b.billed_g("first") - JSC_G_PER_S * MINUTE_S * (10 + 10 / 2)) < 1e-8


def test_what_nobody_uses_has_no_tax(tmp_path: Path) -> None:
    fleet = Fleet("a")
    fleet.nodes["a"].start(PLATFORM, 0)
    fleet.pass_minutes(8)
    tests = [
        near("product:wattribute_platform_jsc_grams:rate5m", JSC_G_PER_S, "7m", within=1e-9),
        {"expr": "job:wattribute_job_platform_tax_grams:rate5m", "eval_time": "7m", "exp_samples": []},
    ]
    check(tmp_path, stored(fleet.pages, *SERIES), tests, [RULES / "fleet_tax.yml"])
