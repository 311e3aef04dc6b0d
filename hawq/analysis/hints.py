"""Say what would help a unit, by rules that docs/analyze.md explains."""

from dataclasses import dataclass
from enum import Enum

import torch

from hawq.analysis.measure import UnitAnalysis
from hawq.ptq.pairs import find_pairs
from hawq.ptq.statistics import Statistics
from hawq.qat.model import QuantizedModel
from hawq.quantizers import UniformActivation
from hawq.quantizers.fake import fake_quantize
from hawq.quantizers.minmax import MinMaxWeight
from hawq.quantizers.mse import MseWeight, best_range

__all__ = ["NEGLIGIBLE", "SAVING", "UNEVEN", "Hint", "Remedies", "hint_of", "remedies_of"]

NEGLIGIBLE = 1e-3
"""KL, nats, up to which a unit needs no help."""

SAVING = 0.2
"""Share of a squared error, 1 dB, that another range must save."""

UNEVEN = 8.0
"""Largest over median channel from which on channels are uneven: the median one has 3 bits less than the tensor."""


class Hint(Enum):
    """What would help."""

    NOTHING = "-"
    WEIGHT_RANGE = "weight range"
    """Another range rule of weights: `mse` or `mix`."""
    WEIGHT_BITS = "weight bits"
    """More bits of weights, or learned rounding: `adaround` or `brecq`."""
    INPUT_RANGE = "input range"
    """Another range rule of activations: `mse`, `laplace` or `percentile`."""
    INPUT_CHANNELS = "equalize"
    """Even channels of the input."""
    INPUT_BITS = "input bits"
    """More bits of the input."""


@dataclass(frozen=True)
class Remedies:
    """What could be done about a unit.

    Attributes:
        weight_saving: share of the squared error of its weights that the range of rule `mse` would save, 0..1.
        input_saving: the same of its input, on the sample of the statistics.
        equalizable: whether `equalize` can even out the channels of its input.
    """

    weight_saving: float
    input_saving: float
    equalizable: bool


@torch.no_grad()
def remedies_of(model: QuantizedModel, statistics: Statistics) -> dict[str, Remedies]:
    """Return what could be done about every unit.

    Args:
        model: ranges found.
        statistics: of its float network.
    """
    seconds = {pair.second for pair in find_pairs(model.graph)}
    return {
        name: Remedies(_weight_saving(model, name), _input_saving(model, name, statistics), name in seconds)
        for name in model.graph.units
    }


def hint_of(unit: UnitAnalysis, remedies: Remedies) -> Hint:
    """Return what would help most: about the weights or the input, whichever has the lower SQNR."""
    if unit.alone.kl <= NEGLIGIBLE:
        return Hint.NOTHING
    if unit.weight.sqnr < unit.activation.sqnr:
        return Hint.WEIGHT_RANGE if remedies.weight_saving >= SAVING else Hint.WEIGHT_BITS
    if remedies.input_saving >= SAVING:
        return Hint.INPUT_RANGE
    return Hint.INPUT_CHANNELS if remedies.equalizable and unit.unevenness >= UNEVEN else Hint.INPUT_BITS


def _weight_saving(model: QuantizedModel, name: str) -> float:
    """Return the share that `mse` would save; 0 of weights that have no range rule."""
    unit = model.unit(name)
    rule = unit.quantizer
    if not isinstance(rule, MinMaxWeight):
        return 0.0
    best = MseWeight(rule.bits, unit.weight, rule.options)
    return _saving(*(float((q(unit.weight) - unit.weight).square().sum()) for q in (rule, best)))


def _input_saving(model: QuantizedModel, name: str, statistics: Statistics) -> float:
    """Return the share that the best range would save; 0 of codes with unequal steps."""
    source = model.graph.nodes[name].inputs[0]
    rule, sample = model.input_quantizer(source), statistics.samples[source]
    if not isinstance(rule, UniformActivation):
        return 0.0
    (low, high), (below, above) = best_range(sample, rule.bits, rule.grid)
    best = fake_quantize(sample, *rule.grid.place(low * below, high * above, rule.bits), *rule.grid.codes(rule.bits))
    return _saving(*(float((found - sample).square().sum()) for found in (rule(sample), best)))


def _saving(now: float, best: float) -> float:
    return max(1 - best / now, 0.0) if now else 0.0
