"""What can be configured, with every default: one Struct per TOML table, one attribute per key.

Units are the last word of each name. Bounds that concern one value stand here, those that join several in check.py.
"""

import datetime
from typing import Annotated, Literal, TypeAlias

import msgspec

from wattribute.agent.core.model import Policy, Role

Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
NotNegative: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
Fraction1: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Uid: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
IdleW: TypeAlias = NotNegative | Literal["learn"]
Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Filled: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
Fuel: TypeAlias = Literal[
    "coal",
    "gas",
    "oil",
    "biomass",
    "solar",
    "solar_rooftop",
    "csp",
    "geothermal",
    "hydro",
    "nuclear",
    "wind_onshore",
    "wind_offshore",
]


class Agent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The daemon itself. `socket` and `state_dir` are root's; the loader puts the user's own in their place.

    `user`: who an agent that root starts becomes once its sensors are open; empty: it stays root.
    """

    user: Annotated[str, msgspec.Meta(max_length=128)] = ""
    node_id: Annotated[str, msgspec.Meta(max_length=128)] = ""
    scheduler_uids: tuple[Uid, ...] = ()
    interval_s: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 1.0
    listen: str = "127.0.0.1:19917"
    socket: Filled = "/run/wattribute/agent.sock"
    state_dir: Filled = "/var/lib/wattribute"


class Export(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long and how many series are shown, how fresh they may be, and to how many joules energy is rounded (0: it
    isn't; the ledger never is).
    """

    hold_s: NotNegative = 900.0
    max_jobs: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 5000
    export_age_s: NotNegative = 0.0
    round_j: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 0.0
    user_label: Literal["name", "uid", "hash", "off"] = "name"


class Web(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Protection of the HTTP endpoint: the path of an exporter-toolkit web file."""

    config_file: str = ""


class Paths(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the kernel's trees are mounted."""

    proc: Filled = "/proc"
    sys: Filled = "/sys"
    cgroup: Filled = "/sys/fs/cgroup"


class Collectors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which sources are read, and without which the agent refuses to start."""

    rapl: Literal["auto", "powercap", "pyrapl", "off"] = "auto"
    nvml: Literal["auto", "off"] = "auto"
    modelled: Literal["auto", "off"] = "auto"
    wall: Literal["off", "psys", "hwmon", "ipmi", "redfish"] = "off"
    require: tuple[Literal["rapl", "nvml"], ...] = ()


class Wall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the whole-node sensor of `collectors.wall` is read.

    `chip` is hwmon's. The others are redfish's: `url` of a BMC, or of one chassis; who signs in is in REDFISH_USER and
    REDFISH_PASSWORD or in `credentials_file`, never in this file. `interval_s` and `timeout_s` are ipmi's too.
    """

    chip: str = ""
    url: str = ""
    credentials_file: str = ""
    ca_file: str = ""
    interval_s: Annotated[float, msgspec.Meta(ge=1, le=60)] = 10.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=30)] = 5.0


class Modelled(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Power of what has no sensor; None is derived from the machine."""

    cpu_idle_w: NotNegative | None = None
    cpu_max_w: Positive | None = None
    dram_w_per_gib: NotNegative | None = None


class Attribution(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who pays idle power and node overhead, and how much of the power is idle (W per package, node or GPU)."""

    idle: Policy = "reserved"
    overhead: Policy = "usage"
    overhead_cgroups: tuple[Filled, ...] = ("system.slice", "init.scope")
    cpu_idle_w: IdleW = "learn"
    dram_idle_w: IdleW = "learn"
    gpu_idle_w: IdleW = "learn"


class Jobs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which jobs are found without being told; `gpu_map_dir` is dcgm-exporter's --hpc-job-mapping-dir, `slurm_dir` is
    where Slurm's prolog tells of its jobs.
    """

    slurm: Literal["auto", "off"] = "auto"
    slurm_dir: Filled = "/run/wattribute-slurm"
    kubernetes: Literal["auto", "off"] = "auto"
    containers: Literal["auto", "off"] = "auto"
    gpu_map_dir: str = ""


class Kubernetes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the kubelet tells of its pods, and which of their labels say what they are."""

    kubelet: Filled = "https://127.0.0.1:10250"
    token_file: Filled = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    ca_file: str = ""
    job_label: Filled = "wattribute.io/job"
    product_label: Filled = "wattribute.io/product"
    uses_label: Filled = "wattribute.io/uses"
    phase_label: Filled = "wattribute.io/phase"


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a rule looks at: cgroup path and systemd unit (patterns as in a shell), user, labels; all that is given."""

    cgroup: str = ""
    user: str = ""
    unit: str = ""
    label: dict[str, str] = {}


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which job and product something belongs to that is found without being told; the first rule that fits counts."""

    match: Match
    job: Annotated[str, msgspec.Meta(max_length=128)] = ""
    product: Annotated[str, msgspec.Meta(max_length=128)] = ""
    role: Role = "use"
    phase: Annotated[str, msgspec.Meta(max_length=128)] = ""


class Carbon(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """PUE and carbon intensity: exactly one of the last five is set (a number, in g CO2e per kWh, by default).

    `pue_series` (a CSV of valid_from,pue) takes the place of `pue`. `table`: which data a zone is looked up in.
    `fallback_g_per_kwh` is what counts while neither a provider nor its cache answers; without it, the zone's own
    figure from the bundled table, or the world's average.
    """

    pue: Annotated[float, msgspec.Meta(ge=1)] = 1.0
    pue_series: Filled | None = None
    factor_type: Literal["lifecycle", "direct"] = "lifecycle"
    table: Literal["bundled", "codecarbon"] = "bundled"
    fallback_g_per_kwh: NotNegative | None = None
    intensity_g_per_kwh: NotNegative | None = 480.0
    mix: dict[Fuel, Fraction1] | None = None
    zone: Filled | None = None
    series: Filled | None = None
    provider: Literal["electricitymaps", "watttime", "uk", "prometheus"] | None = None


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a live provider of carbon intensity is asked. A key or password is in the environment
    (ELECTRICITYMAPS_API_KEY, WATTTIME_USER, WATTTIME_PASSWORD) or in `key_file`, never in this file.

    `query`, for prometheus: PromQL that gives g CO2e per kWh; `pue_query`: one that gives the PUE.
    """

    zone: str = ""
    url: str = ""
    key_file: str = ""
    query: str = ""
    pue_query: str = ""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=120)] = 10.0


class Embodied(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One piece of hardware, or `count` of them: what one cost to make, and over how long that is written off.

    `item` names a part of the catalogue, whose figures then count (`wattribute doctor --embodied` lists what fits);
    else `kgco2e`, with its bounds where they are known. `utilisation`: busy seconds alone pay, TE / (LT * u) each.
    """

    component: Literal["server", "cpu", "dram", "gpu", "ssd", "other"]
    item: str = ""
    kgco2e: NotNegative | None = None
    kgco2e_low: NotNegative | None = None
    kgco2e_high: NotNegative | None = None
    count: Positive = 1.0
    lifetime_years: Positive = 4.0
    utilisation: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where closed rows of all nodes and the products are kept; empty: SQLite in agent.state_dir.

    `divisor_url`: a Prometheus that is asked for a fleet product's concurrent weight in the shared ledger's place.
    """

    url: str = ""
    divisor_url: str = ""
    divisor_query: Filled = 'sum(rate(wattribute_product_weight_seconds_total{product_id="$product"}[5m]))'


class Parent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A product that another was made from, and the part of its EPC that the child inherits."""

    id: Name
    weight: Fraction1


class Product(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A platform, model, data set or service that jobs stand on, and what it costs them.

    `deployed`: from which day (UTC) its EPC is written off; without it, for as long as the agent runs. Retraining is
    split over the jobs of `retraining_interval_days`: a day, from its first retraining job on, where nothing is said.
    """

    id: Name
    kind: Literal["platform", "model", "dataset", "service"] = "service"
    runs_on: tuple[Name, ...] = ()
    owners: tuple[Filled, ...] = ("root",)
    epc_kgco2e: NotNegative | None = None
    lifetime_years: Positive | None = None
    version: str = ""
    status: Literal["open", "frozen", "retired"] = "frozen"
    deployed: datetime.date | None = None
    epc_kgco2e_low: NotNegative | None = None
    epc_kgco2e_high: NotNegative | None = None
    boundary: str = ""
    overhead_g_per_min: NotNegative = 0.0
    concurrency: Annotated[float, msgspec.Meta(ge=0.001)] | None = None
    scope: Literal["node", "fleet"] | None = None
    tax_by: Literal["weight", "reserved", "units"] = "weight"
    amortise: Literal["time", "units"] = "time"
    unit: Name = "request"
    expected_units: Positive | None = None
    retraining_interval_days: Positive | None = None
    parents: tuple[Parent, ...] = ()


class Serving(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is shown of metered requests: so many tenants of a product by name (the others are `_other`), and whether
    the histogram of their energy names the latest request of each bucket (OpenMetrics exemplars).
    """

    max_tenants: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    exemplars: bool = False


class Engine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A serving engine whose page of metrics tells how much it has served.

    `job`: the job that it is; without one, the product's only running job of role use. `counters` name which series
    tell what (`request`, `aborted`, `prompt_token`, `output_token`, `prefill_s`, `decode_s`, `in_flight`, or a unit of
    your own): for any other kind, or in the place of what is known of the kind.
    """

    url: Filled
    product: Name
    kind: Literal["vllm", "tgi", "sglang", "triton", "llamacpp", "other"]
    name: Annotated[str, msgspec.Meta(max_length=128)] = ""
    job: Annotated[str, msgspec.Meta(max_length=128)] = ""
    counters: dict[Name, Filled] = {}
    interval_s: Annotated[float, msgspec.Meta(ge=0.1, le=300)] = 5.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 2.0


class Otlp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where metrics are pushed by OTLP over HTTP (an OpenTelemetry Collector's http://HOST:4318); empty: nowhere.

    Headers, with a key or a tenant in them, come from OTEL_EXPORTER_OTLP_HEADERS, never from this file.
    """

    endpoint: str = ""
    interval_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 15.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=120)] = 10.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be configured."""

    agent: Agent = Agent()
    export: Export = Export()
    web: Web = Web()
    paths: Paths = Paths()
    collectors: Collectors = Collectors()
    wall: Wall = Wall()
    modelled: Modelled = Modelled()
    attribution: Attribution = Attribution()
    jobs: Jobs = Jobs()
    kubernetes: Kubernetes = Kubernetes()
    rule: tuple[Rule, ...] = ()
    carbon: Carbon = Carbon()
    provider: Provider = Provider()
    embodied: tuple[Embodied, ...] = ()
    ledger: Ledger = Ledger()
    serving: Serving = Serving()
    engine: tuple[Engine, ...] = ()
    otlp: Otlp = Otlp()
    product: tuple[Product, ...] = ()
