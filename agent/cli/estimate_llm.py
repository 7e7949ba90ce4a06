"""`wattribute estimate llm`: a large language model by its FLOPs, as MLCarbon does (Faiz et al., ICLR 2024)."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import click

from wattribute.agent.cli.amounts import Amount, Amounts, shown, spread
from wattribute.agent.cli.estimate_inputs import assumed_intensity, assumed_pue, pue_option, said
from wattribute.agent.cli.estimate_words import Assumed, Estimate
from wattribute.agent.core import estimate as e
from wattribute.agent.core.ranges import NIL, Range


@click.command()
@click.option("--parameters", type=Amounts(above=True), help="P: parameters of a dense model, e.g. 175e9.")
@click.option(
    "--base-parameters", type=Amounts(above=True), help="Of a mixture of experts: those of its dense base model."
)
@click.option("--tokens", type=Amounts(above=True), help="D: tokens that it is trained on.")
@click.option("--inference-tokens", type=Amounts(above=True), help="Tokens that it reads and writes in use.")
@click.option("--devices", type=Amounts(above=True), required=True, help="n: accelerators.")
@click.option("--peak-tflops", type=Amounts(above=True), help="Peak of one device, TFLOP/s, and --efficiency.")
@click.option("--efficiency", type=Amounts(high=1, above=True), help="The part of the peak that is reached.")
@click.option("--achieved-tflops", type=Amounts(above=True), help="Or: what one device reaches, TFLOP/s.")
@click.option("--watts", type=Amounts(), required=True, help="Average power of the system per device, W; not the TDP.")
@pue_option
@click.option("--reported-t", type=Amount(above=True), help="What was reported, t CO2e, to compare with.")
@said
def llm(
    parameters: Range | None,
    base_parameters: Range | None,
    tokens: Range | None,
    inference_tokens: Range | None,
    devices: Range,
    peak_tflops: Range | None,
    efficiency: Range | None,
    achieved_tflops: Range | None,
    watts: Range,
    pue: Range | None,
    reported_t: Fraction | None,
    intensity: Range | None,
    zone: str | None,
    as_json: bool,
) -> None:
    """A large language model by FLOPs: 6 * P * D to train, 2 * P * D in use.

    \b
    Example:
      wattribute estimate llm --parameters 175e9 --tokens 300e9 --devices 10000 --peak-tflops 125 \\
        --efficiency 0.197 --watts 330 --pue 1.1 --intensity 429 --reported-t 552.1
    """
    if parameters is None and base_parameters is None:
        raise click.UsageError("give --parameters, or of a mixture of experts --base-parameters.")
    if tokens is None and inference_tokens is None:
        raise click.UsageError("give --tokens, --inference-tokens or both.")
    if (peak_tflops is None) != (efficiency is None) or (peak_tflops is None) == (achieved_tflops is None):
        raise click.UsageError("give --peak-tflops with --efficiency, or --achieved-tflops.")
    counted = base_parameters or parameters
    reached = achieved_tflops or peak_tflops
    assert counted is not None
    assert reached is not None
    site = assumed_pue(pue)
    model = e.Llm(
        parameters=counted,
        devices=devices,
        peak_flops=reached * 10**12,
        efficiency=efficiency or Range.of(1),
        power_w=watts,
        pue=site.value,
    )
    figures: dict[str, tuple[Range, str]] = {}
    parts: dict[str, Range] = {}
    for name, flops in (
        ("training", None if tokens is None else model.training_flops(tokens)),
        ("inference", None if inference_tokens is None else model.inference_flops(inference_tokens)),
    ):
        if flops is not None:
            figures[f"{name} compute"] = (flops / 10**21, "zettaFLOP")
            figures[f"{name} time"] = (model.days(flops), f"days on {spread(devices)} devices")
            parts[name] = model.energy_kwh(flops)
    found = Estimate(
        kind="llm",
        energy_kwh=sum(parts.values(), NIL),
        intensity=assumed_intensity(intensity, zone),
        parts_kwh=parts if len(parts) > 1 else {},
        figures=figures,
        assumptions=tuple(_words(model, site, parameters, base_parameters, inference_tokens)),
    )
    if reported_t is not None:
        deviation = e.deviation(found.co2e_kg, reported_t * 1000)
        found = replace(found, compared=(f"{shown(reported_t)} t reported", deviation))
    found.say(as_json)


def _words(
    model: e.Llm, site: Assumed, parameters: Range | None, base: Range | None, inference_tokens: Range | None
) -> Iterator[str]:
    if base is not None:
        whole = "" if parameters is None else f", not the {spread(parameters)} of all experts"
        yield f"mixture of experts: the {spread(base)} parameters of its dense base model count{whole}"
    yield "6 FLOPs per parameter and token to train, 2 in use; attention over long contexts comes on top"
    flops = model.peak_flops * model.efficiency / 10**12
    yield f"{spread(flops)} TFLOP/s reached and {spread(model.power_w)} W drawn per device all the time"
    if inference_tokens is not None:
        yield "in use as efficient as this too; small batches reach far less"
    yield f"PUE {spread(site.value)} ({site.words})"
