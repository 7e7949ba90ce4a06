"""Rules that join several values of a Config.

A value that would be ignored is refused: whoever reads the numbers must be able to trust that the file was obeyed.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

from wattribute.agent.config.addresses import problems_of_ledger
from wattribute.agent.config.rules import rules_of
from wattribute.agent.config.schema import Carbon, Config, Product, Provider
from wattribute.agent.config.wall import problems as problems_of_wall
from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.products import find_cycle as find_cycle
from wattribute.agent.core.rules import problem as problem_of_rule
from wattribute.agent.identity import problem

MIX_TOLERANCE = 1e-9
_ADDRESS = re.compile(r"https?://(?:[^\s/:\[\]@]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?/?")
_ENDPOINT = re.compile(r"https?://(?:[^\s/:\[\]@?#]+|\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?(?:/[^\s@?#]*)?", re.ASCII)
MAX_PORT = 65_535
MOST_NAMED = 10
MIN_RETRAINING_DAYS = 1 / 1440  # a minute
LEAST_UNITS, MOST_UNITS = 1e-6, 1e24
INTENSITIES = ("intensity_g_per_kwh", "mix", "zone", "series", "provider")

Problem = tuple[str, str]
"""The dotted key at fault, and a sentence that names it and says what to do."""


def problems(config: Config) -> list[Problem]:
    """Everything that is wrong with a configuration whose single values are fine."""
    return [
        *_general(config),
        *problems_of_wall(config),
        *_otlp(config),
        *_rules(config),
        *problems_of_ledger(config.ledger),
        *_carbon(config),
        *_embodied(config),
        *_engines(config),
        *_products(config.product),
    ]


def warnings(config: Config) -> Iterator[str]:
    """What is valid, and hardly what was meant."""
    alone = not config.ledger.url.startswith("postgres") and not config.ledger.divisor_url
    fleet = [product.id for product in config.product if product.scope == "fleet" and not product.concurrency]
    if alone and fleet:
        yield uncounted(fleet)
    if config.otlp.endpoint.startswith("http://") and not _is_loopback(urlsplit(config.otlp.endpoint).hostname or ""):
        yield "otlp.endpoint: job names and power go over the network without encryption; https:// if it isn't trusted"
    for product in config.product:
        if product.expected_units is not None and product.epc_kgco2e is None:
            yield (
                f'product "{product.id}": expected_units, and no EPC in the configuration: its users pay nothing of it '
                f"until it is frozen (wattribute product freeze {product.id}). Or set epc_kgco2e"
            )
    declared = {product.id for product in config.product}
    for product in config.product:
        for parent in product.parents:
            if parent.id not in declared:
                said = _unknown_product(product.id, "parents", parent.id, declared)
                yield (
                    f'{said}. Unless it is registered (wattribute product list), the EPC of "{product.id}" is missing, '
                    "and ASC^e of its users a lower bound"
                )


def uncounted(product_ids: Iterable[str]) -> str:
    """What to tell of products of a fleet whose other nodes nobody knows."""
    ids = [f'"{product_id}"' for product_id in product_ids]
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    named = ", ".join(ids[:MOST_NAMED]) + more
    return (
        f'product {named}: scope = "fleet", and nothing says how many jobs of other nodes use it: what it costs goes '
        "to untaxed, and no job pays it. Set ledger.url to a PostgreSQL that all nodes share, or ledger.divisor_url to "
        'a Prometheus; or declare concurrency = N in place of the scope; or set scope = "node"'
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or "" where none is near."""
    by_folded = {name.casefold(): name for name in known}
    close = get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.5)
    return by_folded[close[0]] if close else ""


def listen_address(listen: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` (IPv6 in brackets, IPv4 in any or none; no host: all). Raises ValueError."""
    host, colon, port_text = listen.rpartition(":")
    if not colon:
        raise ValueError(f'agent.listen "{listen}" has no port; write HOST:PORT, e.g. "127.0.0.1:19917"')
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= MAX_PORT):
        raise ValueError(f'agent.listen "{listen}": port must be a number from 0 to {MAX_PORT}')
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.ip_address(host[1:-1])  # who writes a node's address unseen brackets both
        except ValueError as error:
            raise ValueError(f'agent.listen "{listen}": {error}') from error
        return host[1:-1], int(port_text)
    if ":" in host or "[" in host or "]" in host:
        raise ValueError(f'agent.listen "{listen}": an IPv6 address stands in brackets, e.g. "[::1]:19917"')
    if any(character.isspace() for character in host):
        raise ValueError(f'agent.listen "{listen}": a host has no spaces')
    return host, int(port_text)


def check_exposure(config: Config, *, allow_insecure: bool) -> list[str]:
    """Refuse a web file that doesn't hold, and to serve job names and power to the network without protection.

    Returns what is allowed and hardly what was meant. Raises ConfigError (exit 2).
    """
    host, _ = listen_address(config.agent.listen)
    on_network = not _is_loopback(host)
    reachable = f'agent.listen "{config.agent.listen}" is reachable from the network'
    settings = None
    if config.web.config_file:
        from wattribute.exporters.web.door import load

        settings = load(Path(config.web.config_file)).settings
    if on_network and not allow_insecure and (settings is None or not settings.protects):
        raise ConfigError(
            f"{reachable}, without encryption or login; listen on 127.0.0.1, name a web file with TLS or users "
            "([web] config_file), or add --allow-insecure if the network is trusted"
        )
    told = [] if settings is None else [f"{settings.path}: {text}" for text in settings.ignored]
    if on_network and settings is not None and settings.users and settings.tls is None:
        told.append(f"{settings.path}: {reachable}, and passwords travel in the clear: add tls_server_config")
    return told


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _general(config: Config) -> Iterator[Problem]:
    try:
        listen_address(config.agent.listen)
    except ValueError as error:
        yield "agent.listen", str(error)
    if config.agent.node_id and (why := problem(config.agent.node_id)):
        yield "agent.node_id", f"agent.node_id can't be {config.agent.node_id!r}: {why}"
    for name in config.collectors.require:
        if getattr(config.collectors, name) == "off":
            yield "collectors.require", f'collectors.require names "{name}", but collectors.{name} is "off"'
    idle_w, max_w = config.modelled.cpu_idle_w, config.modelled.cpu_max_w
    if idle_w is not None and max_w is not None and max_w < idle_w:
        yield "modelled.cpu_max_w", f"modelled.cpu_max_w ({max_w:g}) is below modelled.cpu_idle_w ({idle_w:g})"


def _otlp(config: Config) -> Iterator[Problem]:
    endpoint = config.otlp.endpoint
    found = _ENDPOINT.fullmatch(endpoint)
    if endpoint and (found is None or int(found[1] or 0) > MAX_PORT):
        yield (
            "otlp.endpoint",
            f'otlp.endpoint = "{endpoint.partition("?")[0].rpartition("@")[2]}" is no address of a Collector: '
            '"http://127.0.0.1:4318" is one; a key goes into OTEL_EXPORTER_OTLP_HEADERS',
        )


def _rules(config: Config) -> Iterator[Problem]:
    kubelet = config.kubernetes.kubelet
    if not _ADDRESS.fullmatch(kubelet):
        yield (
            "kubernetes.kubelet",
            f'kubernetes.kubelet = "{kubelet}" is no address: "https://127.0.0.1:10250" is one',
        )
    for number, rule in enumerate(rules_of(config)):
        for name, value in (("job", rule.job), ("product", rule.product)):
            if value and (why := problem(value)):
                yield "rule", f"rule[{number}].{name} can't be {value!r}: {why}"
        if why := problem_of_rule(rule):
            yield "rule", f"rule[{number}]: {why}"


def _carbon(config: Config) -> Iterator[Problem]:
    carbon = config.carbon
    given = [name for name in INTENSITIES if getattr(carbon, name) is not None]
    if len(given) != 1:
        yield f"carbon.{given[-1]}", f"carbon: give exactly one of {', '.join(INTENSITIES)}; found {', '.join(given)}"
    if carbon.mix is not None and abs((whole := sum(carbon.mix.values())) - 1) > MIX_TOLERANCE:
        yield "carbon.mix", f"carbon.mix sums to {whole:.12g}; its parts must sum to 1"
    if (carbon, config.provider) != (Carbon(), Provider()):  # a configuration that says nothing of it reads no table
        from wattribute.agent.config.carbon import problems as problems_of_carbon

        yield from problems_of_carbon(config, nearest)


def _embodied(config: Config) -> Iterator[Problem]:
    if config.embodied:  # a configuration that says nothing of it reads no catalogue
        from wattribute.agent.config.embodied import problems as problems_of_embodied

        yield from problems_of_embodied(config.embodied, nearest)


def _engines(config: Config) -> Iterator[Problem]:
    if config.engine:  # a configuration that says nothing of them loads no HTTP client
        from wattribute.agent.config.engines import problems as problems_of_engines

        yield from problems_of_engines(config.engine)


def _products(products: tuple[Product, ...]) -> Iterator[Problem]:
    seen: set[str] = set()
    for product in products:
        if product.id in seen:
            yield "product", f'product "{product.id}" is declared twice'
        seen.add(product.id)
        yield from _product(product)
    for product in products:
        for relation, ids in (("runs_on", product.runs_on), ("parents", [parent.id for parent in product.parents])):
            for other in ids:
                if other not in seen and relation == "runs_on":
                    yield "product", _unknown_product(product.id, relation, other, seen)
            if len(set(ids)) != len(ids):
                yield "product", f'product "{product.id}": {relation} names a product twice'
    for relation, edges in (
        ("runs_on", {product.id: product.runs_on for product in products}),
        ("parents", {product.id: tuple(parent.id for parent in product.parents) for product in products}),
    ):
        circle = find_cycle(edges)
        if circle:
            yield "product", f"product: {relation} goes round in a circle: {' -> '.join(circle)}"
    yield from _given_away(products)


def _product(product: Product) -> Iterator[Problem]:
    if why := problem(product.id):
        yield "product", f"product id can't be {product.id!r}: {why}"
    rates = [
        name
        for name, declared in (
            (f"overhead_g_per_min = {product.overhead_g_per_min:g}", product.overhead_g_per_min > 0),
            # A unit is served on one node, which alone bills it.
            (f"epc_kgco2e = {product.epc_kgco2e or 0:g}", bool(product.epc_kgco2e) and product.amortise == "time"),
        )
        if declared
    ]
    if rates and product.concurrency is None and product.scope is None:
        yield (
            "product",
            f'product "{product.id}": {" and ".join(rates)} would be billed in full by every node; add concurrency = N '
            '(how many jobs use it at once, on all nodes together), scope = "fleet" (counted by the shared ledger) or '
            'scope = "node" (only jobs of this node use it)',
        )
    if product.tax_by != "weight" and (product.concurrency is not None or product.scope == "fleet"):
        yield (
            "product",
            f'product "{product.id}": tax_by = "{product.tax_by}" splits over the jobs of one node, and concurrency '
            'and scope = "fleet" count those of others by weight; set scope = "node" alone, or tax_by = "weight"',
        )
    yield from _amortised(product)
    bounds = [product.epc_kgco2e_low, product.epc_kgco2e, product.epc_kgco2e_high]
    given = [bound for bound in bounds if bound is not None]
    if given and product.epc_kgco2e is None:
        yield "product", f'product "{product.id}": bounds need epc_kgco2e, the figure between them'
    elif given != sorted(given):
        yield "product", f'product "{product.id}": epc_kgco2e_low, epc_kgco2e and epc_kgco2e_high aren\'t in that order'
    if product.status == "open" and product.deployed is not None:
        yield "product", f'product "{product.id}": it has a day of deployment, but status = "open"; set "frozen"'
    if product.retraining_interval_days is not None and product.retraining_interval_days < MIN_RETRAINING_DAYS:
        yield "product", f'product "{product.id}": retraining_interval_days is below a minute'


def _amortised(product: Product) -> Iterator[Problem]:
    if product.amortise == "time" and product.epc_kgco2e and product.lifetime_years is None:
        yield (
            "product",
            f'product "{product.id}": epc_kgco2e needs lifetime_years, over which it is written off; or '
            'amortise = "units" and expected_units',
        )
    if product.amortise == "units" and product.expected_units is None:
        yield (
            "product",
            f'product "{product.id}": amortise = "units" needs expected_units = N, how many it is expected to serve in '
            "its life, over which its EPC is written off",
        )
    if product.expected_units is not None and not MOST_UNITS >= product.expected_units >= LEAST_UNITS:
        yield (
            "product",
            f'product "{product.id}": expected_units = {product.expected_units:g} isn\'t between {LEAST_UNITS:g} and '
            f"{MOST_UNITS:g}",
        )
    if why := problem(product.unit):
        yield "product", f'product "{product.id}": unit can\'t be {product.unit!r}: {why}'


def _unknown_product(product_id: str, relation: str, other: str, known: Iterable[str]) -> str:
    meant = nearest(other, (name for name in known if name != product_id))
    hint = f'; did you mean "{meant}"?' if meant else "; declare it as a [[product]]"
    return f'product "{product_id}": {relation} names "{other}", which isn\'t declared{hint}'


def _given_away(products: tuple[Product, ...]) -> Iterator[Problem]:
    given: dict[str, Fraction] = {}
    for product in products:
        for parent in product.parents:
            given[parent.id] = given.get(parent.id, Fraction(0)) + Fraction(str(parent.weight))
    for parent_id, weight in given.items():
        if weight > 1:
            yield (
                "product",
                f'product "{parent_id}": its children inherit {float(weight):g} of its EPC by weight; '
                "together at most 1",
            )
