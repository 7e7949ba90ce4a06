"""What a model will use before anything runs: ex-ante estimates in kWh and kg CO2e. Estimated, not measured.

Sources: formulas.md, "Ex-ante"; "Evaluating the Carbon Footprint of AI Models" (Gitzel et al. 2023), 3.4 to 3.8;
MLCarbon (Faiz et al., ICLR 2024) for LLMs. Every function raises ValueError for what can't be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from wattribute.agent.core.ranges import NIL, Range
from wattribute.agent.core.units import DAY_S, J_PER_KWH

TRAINING_FLOPS = 6
"""Per parameter and token: two forward, four backward (Kaplan et al. 2020)."""
INFERENCE_FLOPS = 2

THETA = Range.of(3, 5, 5)
"""Training over inference on the same samples. 5: measured on small dense networks, towards which smaller ones rise
(Gitzel, figure 9); 3: by FLOP count, 6PD / 2PD; 4: with all activations computed again."""


def theta(overhead: Range) -> Range:
    """1 / (1 - overhead), overhead being the part of training's energy that isn't inference on its samples."""
    if overhead.high >= 1:
        raise ValueError(f"an overhead is a part of the whole, below 1: {overhead}")
    return Range(1 / (1 - overhead.low), 1 / (1 - overhead.central), 1 / (1 - overhead.high))


def inference_kwh(energy_j: Range, pue: Range) -> Range:
    """I = f(model, processor) * PUE: one inference, with cooling and power loss, from its joules at the machine."""
    if pue.low < 1:
        raise ValueError(f"a PUE is at least 1: {pue}")
    return energy_j * pue / J_PER_KWH


def training_kwh(one_inference_kwh: Range, samples: Range, epochs: Range, theta_ratio: Range = THETA) -> Range:
    """T = E * D * I * theta. I holds the PUE already."""
    if theta_ratio.low < 1:
        raise ValueError(f"training takes no less than inference on its samples: theta {theta_ratio} is below 1")
    return epochs * samples * one_inference_kwh * theta_ratio


def search_kwh(trials_kwh: Sequence[Range]) -> Range:
    """CT = sum of T_h over the trials of an architecture or hyperparameter search."""
    return sum(trials_kwh, NIL)


def lifecycle_kwh(search: Range, training: Range | None, one_inference_kwh: Range, inferences: Range) -> Range:
    """E_life = CT + T + I * e. `training` is None where the search holds the final training."""
    return search + (training or NIL) + one_inference_kwh * inferences


def co2e_kg(energy_kwh: Range, intensity_g_per_kwh: Range) -> Range:
    """CO2eq = EC * EF, with the emission factor in g/kWh and the result in kg."""
    return energy_kwh * intensity_g_per_kwh / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Llm:
    """A large language model, and what it runs on.

    `parameters`: those that each token meets; of a mixture of experts, those of its dense base model. `peak_flops`
    per second and device, `efficiency` the part of it that is reached. `power_w`: average of the system, per device,
    measured or reported: not the TDP.
    """

    parameters: Range
    devices: Range
    peak_flops: Range
    efficiency: Range
    power_w: Range
    pue: Range

    def __post_init__(self) -> None:
        if min(value.low for value in (self.parameters, self.devices, self.peak_flops, self.efficiency)) <= 0:
            raise ValueError("parameters, devices, peak FLOP/s and efficiency are above 0")
        if self.efficiency.high > 1:
            raise ValueError(f"an efficiency is at most 1: {self.efficiency}")
        if self.pue.low < 1:
            raise ValueError(f"a PUE is at least 1: {self.pue}")

    def training_flops(self, tokens: Range) -> Range:
        """6 * P * D."""
        return self.parameters * tokens * TRAINING_FLOPS

    def inference_flops(self, tokens: Range) -> Range:
        """2 * P * D."""
        return self.parameters * tokens * INFERENCE_FLOPS

    def days(self, flops: Range) -> Range:
        """FLOPs / (n * peak * efficiency * 86400)."""
        return flops / (self.devices * self.peak_flops * self.efficiency * DAY_S)

    def energy_kwh(self, flops: Range) -> Range:
        """Average system power * n * hours * PUE; the number of devices cancels out."""
        device_s = flops / (self.peak_flops * self.efficiency)
        return self.power_w * device_s * self.pue / J_PER_KWH


def deviation(estimated: Range, reported: Fraction) -> Fraction:
    """estimated / reported - 1, of the central estimate."""
    if reported <= 0:
        raise ValueError("what was reported is above 0")
    return estimated.central / reported - 1
