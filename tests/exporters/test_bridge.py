"""The bridge: in prometheus_client's registry the same families and values as on our page."""

from prometheus_client import CollectorRegistry, Counter, generate_latest
from tests.exporters import reading
from tests.exporters.snapshots import jobs, product, served, snapshot, totals

from wattribute.agent.core.model import Job, Snapshot
from wattribute.exporters.bridge import WattributeCollector
from wattribute.exporters.metrics import METRICS
from wattribute.exporters.prometheus import PrometheusPage


def shown() -> Snapshot:
    folded = totals(Job(id="_retired", product_id="product-0"), info=False)
    products = [product(f"product-{i}", epc_own_ng=1234567890123) for i in range(4)]
    return snapshot([*jobs(7), folded], products=products, served=[served("product-0"), served("product-1", seed=2)])


def test_the_registry_shows_what_the_page_shows() -> None:
    registry = CollectorRegistry()
    registry.register(WattributeCollector(shown))
    page = PrometheusPage()
    page.publish(shown())
    through_client = reading.families(generate_latest(registry))
    ours = reading.families(page.text())
    assert {name: (f.type, f.documentation) for name, f in through_client.items()} == {
        name: (f.type, f.documentation) for name, f in ours.items()
    }
    assert reading.floats(through_client) == reading.floats(ours)
    assert reading.floats(registry.collect()) == reading.floats(
        reading.families(page.openmetrics(), is_openmetrics=True)
    )


def test_it_registers_without_a_snapshot_and_beside_others() -> None:
    def none_yet() -> Snapshot:
        raise AssertionError("registering asks for no snapshot")

    registry = CollectorRegistry(auto_describe=True)
    collector = WattributeCollector(none_yet)
    registry.register(collector)
    Counter("requests", "A service's own.", registry=registry)
    assert [family.name for family in collector.describe()] == [metric.family for metric in METRICS]


def test_an_empty_node_yields_no_empty_family() -> None:
    families = list(WattributeCollector(lambda: snapshot([], products=[])).collect())
    assert all(family.samples for family in families)
    assert not [family.name for family in families if family.name.startswith("wattribute_job")]
