"""`wattribute estimate`: what a model will use before anything runs, in kWh and kg CO2e. Estimated, not measured.

Sources: Gitzel et al. 2023 (I, T, CT, E_life) and MLCarbon (LLMs by FLOPs); formulas in agent/core/estimate.py.
"""

from typing import Any

import click

from wattribute.agent.cli.amounts import Amounts
from wattribute.agent.cli.estimate_inputs import (
    assumed_intensity,
    assumed_pue,
    at_machine,
    at_the_machine,
    one,
    one_inference,
    said,
    theta_of,
    training_options,
)
from wattribute.agent.cli.estimate_llm import llm
from wattribute.agent.cli.estimate_words import Estimate
from wattribute.agent.core import estimate as e
from wattribute.agent.core.ranges import NIL, Range


@click.group()
def command() -> None:
    """Estimate what a model will use before anything runs. Estimates, not measurements: `run` measures.

    Every figure may be a range, LOW:CENTRAL:HIGH; the result then has worst-case bounds.

    \b
    Example:
      wattribute estimate inference --watts 300 --seconds 0.05 --pue 1.2 --inferences 1e6 --intensity 400
    """


@command.command()
@at_the_machine
@click.option("--inferences", type=Amounts(), default="1", show_default=True, help="How many.")
@said
def inference(
    joules: Range | None,
    watts: Range | None,
    seconds: Range | None,
    pue: Range | None,
    inferences: Range,
    intensity: Range | None,
    zone: str | None,
    as_json: bool,
) -> None:
    """I = f(model, processor) * PUE: inferences, from the energy of one at the machine.

    \b
    Example:
      wattribute estimate inference --joules 3.6 --pue 1.5 --inferences 1e6 --intensity 400
    """
    single = one(joules, watts, seconds, None, pue)
    Estimate(
        kind="inference",
        energy_kwh=single.value * inferences,
        intensity=assumed_intensity(intensity, zone),
        figures={"one inference": (single.value, "kWh"), "inferences": (inferences, "")},
        assumptions=(single.words,),
    ).say(as_json)


@command.command("training")
@one_inference
@click.option("--samples", type=Amounts(), required=True, help="D: samples of the training set.")
@click.option("--epochs", type=Amounts(), required=True, help="E: times that each is met.")
@training_options
@said
def train(
    joules: Range | None,
    watts: Range | None,
    seconds: Range | None,
    pue: Range | None,
    inference_kwh: Range | None,
    samples: Range,
    epochs: Range,
    theta: Range | None,
    overhead: Range | None,
    intensity: Range | None,
    zone: str | None,
    as_json: bool,
) -> None:
    """T = E * D * I * theta: a training, from one inference of the model.

    \b
    Example:
      wattribute estimate training --joules 3.6 --pue 1.5 --samples 100000 --epochs 10 --theta 5
    """
    single, ratio = one(joules, watts, seconds, inference_kwh, pue), theta_of(theta, overhead)
    Estimate(
        kind="training",
        energy_kwh=e.training_kwh(single.value, samples, epochs, ratio.value),
        intensity=assumed_intensity(intensity, zone),
        figures={
            "one inference": (single.value, "kWh"),
            "samples": (samples, ""),
            "epochs": (epochs, ""),
            "theta": (ratio.value, ""),
        },
        assumptions=(single.words, ratio.words),
    ).say(as_json)


class Trial(Amounts):
    """EPOCHS,SAMPLES or EPOCHS,SAMPLES,JOULES of one trial."""

    name = "E,D[,J]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The two or three ranges. Fails as wrong usage."""
        if isinstance(value, tuple):
            return value
        parts = tuple(super(Trial, self).convert(part, param, ctx) for part in str(value).split(","))
        if len(parts) not in (2, 3):
            self.fail(f"{value!r} isn't EPOCHS,SAMPLES or EPOCHS,SAMPLES,JOULES", param, ctx)
        return parts


@command.command()
@one_inference
@click.option("--trials", type=Amounts(), help="Alike trials, of --epochs and --samples each.")
@click.option("--samples", type=Amounts(), help="D: samples that each of --trials trains on.")
@click.option("--epochs", type=Amounts(), help="E: times that each is met.")
@click.option("--trial", "unlike", type=Trial(), multiple=True, help="One more trial, of its own; with its own joules.")
@click.option("--trial-kwh", type=Amounts(), multiple=True, help="One more trial whose energy is known, PUE in it.")
@training_options
@said
def search(
    joules: Range | None,
    watts: Range | None,
    seconds: Range | None,
    pue: Range | None,
    inference_kwh: Range | None,
    trials: Range | None,
    samples: Range | None,
    epochs: Range | None,
    unlike: tuple[tuple[Range, ...], ...],
    trial_kwh: tuple[Range, ...],
    theta: Range | None,
    overhead: Range | None,
    intensity: Range | None,
    zone: str | None,
    as_json: bool,
) -> None:
    """CT = sum of T_h: a search for an architecture or hyperparameters, trial by trial.

    \b
    Example:
      wattribute estimate search --joules 3.6 --pue 1.5 --trials 20 --samples 100000 --epochs 10 --trial 50,100000
    """
    if None in (trials, samples, epochs) and (trials, samples, epochs) != (None, None, None):
        raise click.UsageError("--trials, --samples and --epochs go together.")
    if trials is None and not unlike and not trial_kwh:
        raise click.UsageError("no trials: give --trials with --samples and --epochs, --trial or --trial-kwh.")
    parts, words = list(trial_kwh), []
    own = [trial for trial in unlike if len(trial) == 3]
    alike = [] if trials is None or samples is None or epochs is None else [(epochs, samples, trials)]
    alike += [(trial[0], trial[1], Range.of(1)) for trial in unlike if len(trial) == 2]
    ratio = theta_of(theta, overhead)
    if alike:
        single = one(joules, watts, seconds, inference_kwh, pue)
        words.append(single.words)
        parts += [e.training_kwh(single.value, d, times, ratio.value) * count for times, d, count in alike]
    elif (joules, watts, seconds, inference_kwh) != (None, None, None, None):
        raise click.UsageError("no trial uses the energy of one inference that was given.")
    for times, d, own_joules in own:
        single = at_machine(own_joules, assumed_pue(pue))
        words.append(single.words)
        parts.append(e.training_kwh(single.value, d, times, ratio.value))
    if alike or own:
        words.append(ratio.words)
    count = (trials or NIL) + Range.of(len(unlike) + len(trial_kwh))
    Estimate(
        kind="search",
        energy_kwh=e.search_kwh(parts),
        intensity=assumed_intensity(intensity, zone),
        figures={"trials": (count, "")},
        assumptions=tuple(dict.fromkeys(words)),
    ).say(as_json)


@command.command()
@one_inference
@click.option("--inferences", type=Amounts(), required=True, help="e: expected over the model's life.")
@click.option("--search-kwh", type=Amounts(), default="0", show_default=True, help="CT: the search, PUE in it.")
@click.option("--training-kwh", type=Amounts(), help="T: the final training, PUE in it.")
@click.option("--final-training-in-search", is_flag=True, help="CT holds the final training: T is left out.")
@said
def lifecycle(
    joules: Range | None,
    watts: Range | None,
    seconds: Range | None,
    pue: Range | None,
    inference_kwh: Range | None,
    inferences: Range,
    search_kwh: Range,
    training_kwh: Range | None,
    final_training_in_search: bool,
    intensity: Range | None,
    zone: str | None,
    as_json: bool,
) -> None:
    """E_life = CT + T + I * e: a model's whole life, from search to the last inference.

    \b
    Example:
      wattribute estimate lifecycle --search-kwh 150 --training-kwh 7.5 --inference-kwh 1.5e-6 --inferences 1e6
    """
    if training_kwh is None and not final_training_in_search:
        raise click.UsageError("give --training-kwh, or say that CT holds it: --final-training-in-search.")
    single = one(joules, watts, seconds, inference_kwh, pue)
    kept = None if final_training_in_search else training_kwh
    words = [single.words]
    if final_training_in_search:
        words.append("the search holds the final training, so that T is left out")
    Estimate(
        kind="lifecycle",
        energy_kwh=e.lifecycle_kwh(search_kwh, kept, single.value, inferences),
        intensity=assumed_intensity(intensity, zone),
        parts_kwh={
            "search": search_kwh,
            **({} if kept is None else {"training": kept}),
            "inference": single.value * inferences,
        },
        figures={"one inference": (single.value, "kWh"), "inferences": (inferences, "")},
        assumptions=tuple(words),
    ).say(as_json)


command.add_command(llm)
