"""What an ex-ante estimate is made from: options of its commands, and what is assumed where nothing was said."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from wattribute.agent.cli.amounts import Amounts, spread
from wattribute.agent.cli.estimate_words import Assumed
from wattribute.agent.config import Loaded, load
from wattribute.agent.core import estimate as e
from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.ranges import Range, exact

Command = TypeVar("Command", bound=Callable[..., Any])

THETA_WORDS = (
    "5 was measured on small dense networks (backpropagation and loss 80 % of the energy), 3 is by FLOP count, 4 with "
    "all activations computed again"
)


def options(*all_of_them: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order in which they are to be shown."""

    def add(function: Command) -> Command:
        for option in reversed(all_of_them):
            function = option(function)
        return function

    return add


pue_option = click.option("--pue", type=Amounts(low=1), help="Power usage effectiveness  [default: as configured]")
said = options(
    click.option("--intensity", type=Amounts(), help="Carbon intensity, g CO2e/kWh  [default: as configured]"),
    click.option("--zone", help="Or: that of a country, US state or cloud region, e.g. FR, US-CA."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)
at_the_machine = options(
    click.option("--joules", type=Amounts(), help="Energy of one inference at the machine, without PUE, J."),
    click.option("--watts", type=Amounts(), help="Or: average power while it runs, W, and --seconds."),
    click.option("--seconds", type=Amounts(), help="Time of one inference, s."),
    pue_option,
)
one_inference = options(
    at_the_machine,
    click.option("--inference-kwh", type=Amounts(), help="Or: I itself, kWh, which holds the PUE already."),
)
training_options = options(
    click.option("--theta", type=Amounts(low=1), help=f"Training over inference: {THETA_WORDS}  [default: 3:5:5]"),
    click.option("--overhead", type=Amounts(), help="Or: theta as 1 / (1 - overhead); 0.8 is a theta of 5."),
)


def at_machine(joules: Range, site: Assumed) -> Assumed:
    """I, from the energy of one inference at the machine."""
    words = f"one inference {spread(joules)} J at the machine, times PUE {spread(site.value)} ({site.words})"
    return Assumed(e.inference_kwh(joules, site.value), words)


def one(
    joules: Range | None, watts: Range | None, seconds: Range | None, inference_kwh: Range | None, pue: Range | None
) -> Assumed:
    """I, from whichever was given. Raises click.UsageError, ConfigError."""
    if (watts is None) != (seconds is None):
        raise click.UsageError("--watts and --seconds go together.")
    ways = [value for value in (joules, watts, inference_kwh) if value is not None]
    if len(ways) != 1:
        raise click.UsageError(
            "what one inference takes must be given in one way: --joules, --watts with --seconds, or --inference-kwh "
            "where there is one."
        )
    if inference_kwh is not None:
        if pue is not None:
            raise click.UsageError("--inference-kwh holds the PUE already: --pue would count it twice.")
        return Assumed(inference_kwh, f"one inference {spread(inference_kwh)} kWh, in which PUE is counted already")
    if joules is not None:
        return at_machine(joules, assumed_pue(pue))
    assert watts is not None
    assert seconds is not None
    return at_machine(watts * seconds, assumed_pue(pue))


def theta_of(theta: Range | None, overhead: Range | None) -> Assumed:
    """Theta: as given, by the overhead, or the default. Raises click.UsageError."""
    if theta is not None and overhead is not None:
        raise click.UsageError("give one of --theta and --overhead.")
    if overhead is not None:
        try:
            found = e.theta(overhead)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--overhead") from error
        return Assumed(found, f"theta {spread(found)}: 1 / (1 - {spread(overhead)})")
    if theta is not None:
        return Assumed(theta, f"theta {spread(theta)}: given")
    return Assumed(e.THETA, f"theta {spread(e.THETA)}: not given; {THETA_WORDS}")


def assumed_pue(given: Range | None) -> Assumed:
    """The PUE: as given, as configured, or none with an average site's above it. Raises ConfigError."""
    if given is not None:
        return Assumed(given, "given")
    from wattribute.agent.core.uncertainty import PUE_UNCONFIGURED_HIGH

    loaded = _loaded()
    carbon = loaded.config.carbon
    if carbon.pue_series is not None:
        raise ConfigError("the configured PUE changes over time (carbon.pue_series): say which one counts, --pue")
    if loaded.is_default("carbon.pue"):
        high = float(PUE_UNCONFIGURED_HIGH)
        return Assumed(
            Range.of(1, 1, PUE_UNCONFIGURED_HIGH), f"not given: no cooling, {high:g} (2020's average) at most"
        )
    return Assumed(Range.of(carbon.pue), "configured (carbon.pue)")


def assumed_intensity(given: Range | None, zone: str | None) -> Assumed:
    """Carbon intensity, g/kWh: as given, of a zone, or as configured. Raises ConfigError, click.UsageError."""
    if given is not None:
        if zone is not None:
            raise click.UsageError("give one of --intensity and --zone.")
        return Assumed(given, "given")
    from msgspec import structs

    from wattribute.agent.grid import chosen, fixed_value

    loaded = _loaded()
    carbon, configured = loaded.config.carbon, chosen(loaded)
    if zone is not None:
        carbon, configured = structs.replace(carbon, zone=zone), True
    elif carbon.series is not None or carbon.provider is not None:
        raise ConfigError(
            "the configured carbon intensity changes over time: say which one counts, --intensity or --zone"
        )
    value = fixed_value(carbon, 0, configured=configured)
    central = exact(value.gco2e_per_kwh)
    low, high = (central if bound is None else exact(bound) for bound in (value.low_g_per_kwh, value.high_g_per_kwh))
    place = ", ".join(str(said) for said in (value.zone, value.method, value.year, value.source) if said)
    return Assumed(Range(low, central, high), place if configured else f"not given, the world: {place}")


def _loaded() -> Loaded:
    return load(None, os.environ, {})
