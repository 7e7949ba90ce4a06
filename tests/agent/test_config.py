"""Configuration: layers and origins, every error names key and remedy, what isn't there yet is refused."""

import itertools
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent import wiring
from wattribute.agent.config import Config, Loaded, Product, check_exposure, listen_address, load
from wattribute.agent.config.check import find_cycle
from wattribute.agent.core.declared import declared
from wattribute.agent.core.errors import ConfigError

NO_FILE = Path("/nonexistent/wattribute.toml")

CONTRACT = """
[agent]
node_id = ""
scheduler_uids = []
interval_s = 1.0
listen = "127.0.0.1:19917"
socket = "/run/wattribute/agent.sock"
state_dir = "/var/lib/wattribute"
[export]
hold_s = 900
max_jobs = 5000
export_age_s = 0
user_label = "name"
[web]
config_file = ""
[paths]
proc = "/proc"
sys = "/sys"
cgroup = "/sys/fs/cgroup"
[collectors]
rapl = "auto"
nvml = "auto"
modelled = "auto"
wall = "off"
require = []
[modelled]
cpu_idle_w = 20.0
cpu_max_w = 120.0
dram_w_per_gib = 0.375
[attribution]
idle = "reserved"
overhead = "usage"
overhead_cgroups = ["system.slice", "init.scope"]
cpu_idle_w = "learn"
dram_idle_w = "learn"
gpu_idle_w = "learn"
[[rule]]
match = { cgroup = "/kubepods/*", label = { app = "vllm" } }
product = "llama-3-8b"
role = "use"
[carbon]
pue = 1.0
factor_type = "lifecycle"
intensity_g_per_kwh = 480
[[embodied]]
component = "server"
kgco2e = 1200
lifetime_years = 4
[ledger]
url = ""
[[product]]
id = "iks-dallas"
kind = "platform"
runs_on = []
owners = ["root"]
epc_kgco2e = 1000.0
lifetime_years = 6
overhead_g_per_min = 50.0
concurrency = 10
scope = "fleet"
tax_by = "weight"
amortise = "time"
retraining_interval_days = 1
parents = [ { id = "bert-base", weight = 0.5 } ]
"""


def read(
    text: str, tmp_path: Path, env: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> Loaded:
    path = tmp_path / "wattribute.toml"
    path.write_text(text)
    return load(path, env or {}, flags or {}, uid=0)


def refusal(text: str, tmp_path: Path, env: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, tmp_path, env)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_an_address_in_brackets_may_be_of_either_kind() -> None:
    assert listen_address("[10.0.0.1]:80") == ("10.0.0.1", 80)
    assert listen_address("[fd00::1]:80") == ("fd00::1", 80)


def environment_refusal(**variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(None, variables, {}, system_file=NO_FILE, uid=0)
    return str(caught.value)


def test_every_key_of_the_contract_is_understood_and_its_defaults_are_the_defaults(tmp_path: Path) -> None:
    loaded = read(CONTRACT, tmp_path)
    default = Config()
    for section in ("agent", "export", "web", "paths", "collectors", "attribution", "carbon", "ledger"):
        assert getattr(loaded.config, section) == getattr(default, section), section
    assert loaded.config.modelled.cpu_max_w == 120.0
    assert default.modelled.cpu_max_w is None
    assert loaded.config.product[0].parents[0].weight == 0.5
    assert loaded.config.embodied[0].kgco2e == 1200.0


def test_nothing_configured_is_480_g_and_says_so() -> None:
    loaded = load(None, {}, {}, system_file=NO_FILE, uid=0)
    assert loaded.config == Config()
    assert loaded.config.carbon.intensity_g_per_kwh == 480.0
    assert loaded.is_default("carbon.intensity_g_per_kwh")
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.path is None


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    text = '[agent]\ninterval_s = 2\nlisten = "127.0.0.1:2"\nnode_id = "from-file"\n'
    env = {"WATTRIBUTE_AGENT__INTERVAL_S": "3", "WATTRIBUTE_AGENT__LISTEN": "127.0.0.1:3"}
    loaded = read(text, tmp_path, env, {"agent.listen": "127.0.0.1:4", "agent.socket": None})
    agent = loaded.config.agent
    assert (agent.node_id, agent.interval_s, agent.listen) == ("from-file", 3.0, "127.0.0.1:4")
    assert loaded.origins["agent.node_id"] == f"file {tmp_path}/wattribute.toml"
    assert loaded.origins["agent.interval_s"] == "WATTRIBUTE_AGENT__INTERVAL_S"
    assert loaded.origins["agent.listen"] == "flag --listen"
    assert loaded.origins["agent.socket"] == "default"


def test_the_file_is_the_option_then_the_variable_then_the_system_one(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("option", "variable", "system")]
    for index, path in enumerate(paths):
        path.write_text(f"[agent]\ninterval_s = {index + 1}\n")
    env = {"WATTRIBUTE_CONFIG": str(paths[1])}
    assert load(paths[0], env, {}, system_file=paths[2]).config.agent.interval_s == 1
    assert load(None, env, {}, system_file=paths[2]).config.agent.interval_s == 2
    assert load(None, {}, {}, system_file=paths[2]).config.agent.interval_s == 3
    assert load(None, {}, {}, system_file=paths[2]).path == paths[2]


def test_environment_values_are_toml_or_plain_text() -> None:
    env = {
        "WATTRIBUTE_AGENT__NODE_ID": "12",
        "WATTRIBUTE_AGENT__SCHEDULER_UIDS": "[5, 6]",
        "WATTRIBUTE_AGENT__SOCKET": "'/tmp/a b.sock'",
        "WATTRIBUTE_CARBON__MIX": "{ coal = 0.8, solar = 0.2 }",
        "WATTRIBUTE_ATTRIBUTION__CPU_IDLE_W": "37",
        "WATTRIBUTE_ATTRIBUTION__GPU_IDLE_W": "learn",
        "WATTRIBUTE_PRODUCT": '[{ id = "k8s", kind = "platform" }]',
        "WATTRIBUTE_JOB_ID": "not a setting",
        "WATTRIBUTE_TEST_REQUIRE": "1",
    }
    config = load(None, env, {}, system_file=NO_FILE, uid=0).config
    assert config.agent.node_id == "12"
    assert config.agent.scheduler_uids == (5, 6)
    assert config.agent.socket == "/tmp/a b.sock"
    assert config.carbon.mix == {"coal": 0.8, "solar": 0.2}
    assert (config.attribution.cpu_idle_w, config.attribution.gpu_idle_w) == (37.0, "learn")
    assert config.product == (Product(id="k8s", kind="platform"),)


def test_one_way_to_state_intensity_replaces_another_of_a_lower_layer(tmp_path: Path) -> None:
    text = "[carbon]\nmix = { coal = 0.8, solar = 0.2 }\n"
    assert read(text, tmp_path).config.carbon.intensity_g_per_kwh is None
    carbon = read(text, tmp_path, {"WATTRIBUTE_CARBON__INTENSITY_G_PER_KWH": "50"}).config.carbon
    assert (carbon.mix, carbon.intensity_g_per_kwh) == (None, 50.0)


@pytest.mark.parametrize(
    ("env", "socket", "state_dir"),
    [
        ({"HOME": "/home/ada"}, "/home/ada/.local/state/wattribute/agent.sock", "/home/ada/.local/state/wattribute"),
        (
            {"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/7", "XDG_STATE_HOME": "/var/ada"},
            "/run/user/7/wattribute/agent.sock",
            "/var/ada/wattribute",
        ),
        ({}, "/tmp/wattribute-7/agent.sock", "/tmp/wattribute-7"),
    ],
)
def test_a_user_without_root_gets_private_places(
    env: dict[str, str], socket: str, state_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    agent = load(None, env, {}, system_file=NO_FILE, uid=7).config.agent
    assert (agent.socket, agent.state_dir) == (socket, state_dir)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[agent]\nintervall_s = 1", "wattribute.toml: unknown key agent.intervall_s; did you mean interval_s?"),
        ("[agnt]\ninterval_s = 1", "wattribute.toml: unknown key agnt; did you mean agent?"),
        ('[collectors]\nrapl = "pwercap"', 'collectors.rapl can\'t be "pwercap"; did you mean "powercap"?'),
        ('[attribution]\ncpu_idle_w = "lern"', 'attribution.cpu_idle_w can\'t be "lern"; did you mean "learn"?'),
        ("[carbon]\nmix = { wind = 1 }", "unknown key carbon.mix.wind; did you mean wind_"),
        ('[collectors]\nrequire = ["rpl"]', 'collectors.require[0] can\'t be "rpl"; did you mean "rapl"?'),
        ('[[product]]\nid = "a"\nwieght = 1', "unknown key product[0].wieght"),
        ("[[product]]\nkind = 'model'", "product[0]: is missing the key `id`"),
        ("[agent]\ninterval_s = '1'", "agent.interval_s: expected a number, got a string (it is '1')"),
        ("max_jobs = 1", "wattribute.toml: unknown key max_jobs outside a section; did you mean export.max_jobs?"),
        ("[[agent]]\ninterval_s = 1", "agent: write [agent]"),
        ("[product]\nid = 'a'", "product: write [[product]]"),
        ("[carbon]\npue_series = 3", "carbon.pue_series: expected a string, got a whole number (it is 3)"),
        ('[carbon]\nprovider = "electricitymaps"', 'wattribute.toml: carbon.provider = "electricitymaps" needs'),
        ("[agent]\ninterval_s = 0.01", "agent.interval_s: expected a number >= 0.05 (it is 0.01)"),
        ("[agent]\ninterval_s = nan", "agent.interval_s"),
        ("[export]\nhold_s = inf", "export.hold_s must be a finite number"),
        ("[carbon]\npue = 0.9", "carbon.pue: expected a number >= 1.0 (it is 0.9)"),
        ("agent = 1", "agent: expected a table, got a whole number"),
        ("[agent]\ninterval_s = ?", "wattribute.toml: not valid TOML: Invalid value (at line 2, column 14)"),
        ("[carbon]\nmix = { coal = 0.8 }", "carbon.mix sums to 0.8; its parts must sum to 1"),
        ("[carbon]\nmix = { coal = 1 }\nintensity_g_per_kwh = 1", "exactly one of intensity_g_per_kwh, mix"),
        ('[agent]\nlisten = "localhost"', 'agent.listen "localhost" has no port'),
        ('[agent]\nlisten = "::1:80"', "an IPv6 address stands in brackets"),
        ('[agent]\nlisten = "127.0.0.1:70000"', "port must be a number from 0 to 65535"),
        ('[agent]\nnode_id = "_n"', "it starts with '_', which is reserved"),
        (
            '[collectors]\nrapl = "off"\nrequire = ["rapl"]',
            'collectors.require names "rapl", but collectors.rapl is "off"',
        ),
        ("[modelled]\ncpu_idle_w = 20\ncpu_max_w = 10", "modelled.cpu_max_w (10) is below modelled.cpu_idle_w (20)"),
    ],
)
def test_a_mistake_is_named_with_the_nearest_valid_word(text: str, message: str, tmp_path: Path) -> None:
    said = refusal(text, tmp_path)
    assert said.startswith("wattribute.toml: ")
    assert message in said


def test_all_misspelt_keys_are_told_at_once(tmp_path: Path) -> None:
    assert len(refusal('[agent]\nintervall_s = 1\nlisen = ""\n[collectors]\nrapl = "x"', tmp_path).splitlines()) == 3


def products(*tables: str) -> str:
    return "".join(f"[[product]]\n{table}\n" for table in tables)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (products('id = "a"', 'id = "a"'), 'product "a" is declared twice'),
        (
            products('id = "a"\ntax_by = "units"\nscope = "fleet"'),
            'tax_by = "units" splits over the jobs of one node, and concurrency and scope = "fleet" count those of '
            'others by weight; set scope = "node" alone',
        ),
        (
            products('id = "a"\ntax_by = "reserved"\nconcurrency = 10\nscope = "node"'),
            'tax_by = "reserved" splits over the jobs of one node',
        ),
        (
            products('id = "a"\noverhead_g_per_min = 50'),
            "overhead_g_per_min = 50 would be billed in full by every node",
        ),
        (products('id = "a"\nepc_kgco2e = 1\nlifetime_years = 1'), "epc_kgco2e = 1 would be billed in full"),
        (products('id = "a"\nepc_kgco2e = 1\nconcurrency = 2'), "epc_kgco2e needs lifetime_years"),
        (
            products('id = "iks"', 'id = "a"\nruns_on = ["isk"]'),
            'names "isk", which isn\'t declared; did you mean "iks"?',
        ),
        (products('id = "a"\nruns_on = ["zzz"]'), "isn't declared; declare it as a [[product]]"),
        (
            products('id = "a"\nruns_on = ["b"]', 'id = "b"\nruns_on = ["a"]'),
            "runs_on goes round in a circle: a -> b -> a",
        ),
        (products('id = "a"\nparents = [{ id = "a", weight = 1 }]'), "parents goes round in a circle: a -> a"),
        (products('id = "b"', 'id = "a"\nruns_on = ["b", "b"]'), "runs_on names a product twice"),
        (
            products(
                'id = "p"', *(f'id = "{child}"\nparents = [{{ id = "p", weight = 0.6 }}]' for child in ("a", "b"))
            ),
            'product "p": its children inherit 1.2 of its EPC',
        ),
        (products('id = "a"\nepc_kgco2e_low = 1'), "bounds need epc_kgco2e"),
        (products('id = "a"\nepc_kgco2e = 3\nepc_kgco2e_low = 4\nscope = "node"\nlifetime_years = 1'), "in that order"),
        (products('id = "a"\nstatus = "open"\ndeployed = 2026-01-01'), "has a day of deployment"),
        (products('id = "a"\nretraining_interval_days = 0.0001'), "is below a minute"),
        (products('id = "a"\namortise = "units"'), 'amortise = "units" needs expected_units = N'),
        (products('id = "a"\nexpected_units = 1e-9'), "expected_units = 1e-09 isn't between 1e-06 and 1e+24"),
        (products('id = "a"\nexpected_units = 1e300'), "expected_units = 1e+300 isn't between"),
        (products('id = "a"\nunit = "_t"'), "unit can't be '_t': it starts with '_'"),
        (products('id = "_a"'), "it starts with '_', which is reserved"),
    ],
)
def test_products_that_do_not_add_up_are_refused(text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(text, tmp_path)


def test_an_epc_by_units_needs_neither_a_lifetime_nor_a_number_of_users(tmp_path: Path) -> None:
    table = 'id = "a"\nepc_kgco2e = 1\namortise = "units"\nexpected_units = 0.3\nunit = "token"'
    loaded = read(products(table), tmp_path)
    assert loaded.warnings == ()
    (product,) = wiring.products(loaded.config)
    assert (product.amortise, product.unit, product.expected_micro_units) == ("units", "token", 300_000)
    (said,) = read(products('id = "a"\nexpected_units = 2'), tmp_path).warnings
    assert "until it is frozen (wattribute product freeze a). Or set epc_kgco2e" in said


def test_a_parent_that_nobody_declared_is_missing_and_said_to_be(tmp_path: Path) -> None:
    loaded = read(products('id = "bert"', 'id = "a"\nparents = [{ id = "bret", weight = 0.5 }]'), tmp_path)
    (said,) = loaded.warnings
    assert 'parents names "bret", which isn\'t declared; did you mean "bert"?' in said
    assert 'the EPC of "a" is missing' in said
    assert declared(wiring.products(loaded.config)).parts["a"][1] is None


def test_weights_that_sum_to_one_in_decimal_are_accepted(tmp_path: Path) -> None:
    children = [f'id = "c{i}"\nparents = [{{ id = "p", weight = 0.1 }}]' for i in range(10)]
    assert len(read(products('id = "p"', *children), tmp_path).config.product) == 11


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ("", 1),
        ("concurrency = 5", 0),
        ("[ledger]\nurl = 'postgresql://u@h/d'", 0),
        ("[ledger]\ndivisor_url = 'http://127.0.0.1:9090'", 0),
        ("[ledger]\nurl = 'sqlite:///x'", 1),
    ],
)
def test_a_fleet_that_nobody_counts_is_warned_of(more: str, count: int, tmp_path: Path) -> None:
    loaded = read(products(f'id = "a"\noverhead_g_per_min = 50\nscope = "fleet"\n{more}'), tmp_path)
    assert len(loaded.warnings) == count
    assert all(text.startswith('product "a": scope = "fleet", and nothing says') for text in loaded.warnings)


def test_scope_node_makes_a_declared_rate_unambiguous(tmp_path: Path) -> None:
    assert (
        read(products('id = "a"\noverhead_g_per_min = 50\nscope = "node"'), tmp_path).config.product[0].scope == "node"
    )


def test_environment_mistakes_name_the_variable() -> None:
    assert environment_refusal(WATTRIBUTE_AGENT__INTERVALL_S="1") == (
        "WATTRIBUTE_AGENT__INTERVALL_S: unknown key; did you mean WATTRIBUTE_AGENT__INTERVAL_S?"
    )
    assert "did you mean WATTRIBUTE_AGENT__INTERVAL_S?" in environment_refusal(WATTRIBUTE_AGENT_INTERVAL_S="1")
    assert environment_refusal(WATTRIBUTE_AGENT__INTERVAL_S="fast").startswith(
        "WATTRIBUTE_AGENT__INTERVAL_S: agent.interval_s: expected a number"
    )
    assert environment_refusal(WATTRIBUTE_AGENT__LISTEN="here").startswith("WATTRIBUTE_AGENT__LISTEN: agent.listen")
    assert "did you mean" in environment_refusal(WATTRIBUTE_PRODUCT__ID="a")


def test_a_value_can_not_smuggle_in_a_second_key() -> None:
    value = '1\n[agent]\nlisten = "0.0.0.0:1"'
    assert environment_refusal(WATTRIBUTE_AGENT__INTERVAL_S=value).startswith("WATTRIBUTE_AGENT__INTERVAL_S: ")


def test_a_file_that_can_not_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: can't be read: No such file"):
        load(tmp_path / "nowhere.toml", {}, {})
    with pytest.raises(ConfigError, match="Is a directory"):
        load(None, {"WATTRIBUTE_CONFIG": str(tmp_path)}, {})
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "latin.toml", {}, {})


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("127.0.0.1:19917", "127.0.0.1", 19917),
        ("[::1]:0", "::1", 0),
        (":80", "", 80),
        ("node-7.lan:80", "node-7.lan", 80),
    ],
)
def test_listen_addresses(listen: str, host: str, port: int) -> None:
    assert listen_address(listen) == (host, port)


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:80", ":80", "node-7:80", "10.0.0.1:80"])
def test_the_network_needs_a_word_of_its_own(listen: str) -> None:
    config = load(None, {}, {"agent.listen": listen}, system_file=NO_FILE).config
    with pytest.raises(ConfigError, match="--allow-insecure"):
        check_exposure(config, allow_insecure=False)
    check_exposure(config, allow_insecure=True)


@pytest.mark.parametrize("listen", ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "localhost:80"])
def test_loopback_is_fine(listen: str) -> None:
    check_exposure(load(None, {}, {"agent.listen": listen}, system_file=NO_FILE).config, allow_insecure=False)


IDS = st.sampled_from("abcdef")


@given(st.dictionaries(IDS, st.lists(IDS, max_size=3).map(tuple), max_size=6))
def test_a_cycle_is_found_exactly_where_following_edges_comes_back(edges: dict[str, tuple[str, ...]]) -> None:
    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        queue = list(edges.get(start, ()))
        while queue:
            node = queue.pop()
            if node not in seen:
                seen.add(node)
                queue.extend(edges.get(node, ()))
        return seen

    circle = find_cycle(edges)
    assert bool(circle) == any(node in reachable(node) for node in edges)
    if circle:
        assert circle[0] == circle[-1]
        assert all(after in edges[before] for before, after in itertools.pairwise(circle))


KEYS = st.sampled_from(
    ["agent", "carbon", "product", "collectors", "mix", "interval_s", "id", "parents", "rule", "zzz"]
)
SCALARS = st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=5), st.sampled_from(["auto", "off"]))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@given(KEYS, KEYS, VALUES)
def test_any_flag_is_a_configuration_or_a_config_error(section: str, key: str, value: object) -> None:
    try:
        loaded = load(None, {}, {f"{section}.{key}": value}, system_file=NO_FILE, uid=0)
    except ConfigError as error:
        assert str(error)
    else:
        assert loaded.origins[f"{section}.{key}"].startswith("flag --")


@given(st.text(max_size=60))
def test_any_text_in_the_environment_is_a_value_or_a_config_error(text: str) -> None:
    for key in ("AGENT__INTERVAL_S", "AGENT__NODE_ID", "CARBON__MIX", "PRODUCT"):
        try:
            load(None, {f"WATTRIBUTE_{key}": text}, {}, system_file=NO_FILE, uid=0)
        except ConfigError as error:
            assert f"WATTRIBUTE_{key}" in str(error)


def test_the_contract_example_is_toml() -> None:
    assert set(tomllib.loads(CONTRACT)) == set(Config.__struct_fields__) - {
        "jobs",
        "kubernetes",
        "provider",
        "serving",
        "engine",
        "otlp",
        "wall",
    }
