"""The factors on gradients of what is learned."""

import math

import pytest
import torch

from hawq.errors import UsageError
from hawq.quantizers import (
    ACTIVATION_QUANTIZERS,
    WEIGHT_QUANTIZERS,
    ActivationGrid,
    QuantOptions,
    StepGradient,
)

FORMULAS = {
    "paper": lambda n, fan, qp: 1 / math.sqrt(n * qp),
    "none": lambda n, fan, qp: 1.0,
    "fan-scale": lambda n, fan, qp: 0.5 * math.sqrt(fan),
    "scale-fan": lambda n, fan, qp: 0.5 / math.sqrt(fan),
    "element-scale": lambda n, fan, qp: 0.5 * math.sqrt(n),
    "scale-element": lambda n, fan, qp: 0.5 / math.sqrt(n),
}
WEIGHTS = {"lsq": (3, 3), "lsq+": (3, 3), "xnor++": (1, 1), "ternary": (2, 1), "fatnn": (2, 1)}
"""Bits, and Qp of the formula."""
ACTIVATIONS = {"lsq": (3, 3), "lsq+": (3, 7), "xnor++": (1, 1), "ternary": (2, 1), "fatnn": (2, 1), "n2uq": (3, 3)}


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slopes(module, value):
    """Return the gradients of what a quantizer learns."""
    module(value).backward(values(*value.shape, seed=5))
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def test_there_is_a_formula_for_each():
    assert FORMULAS.keys() == {kind.value for kind in StepGradient}
    for name, formula in FORMULAS.items():
        assert StepGradient(name).factor(48, 27, 7) == pytest.approx(formula(48, 27, 7), rel=1e-15)


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_what_weights_learn(name, kind):
    weight, (bits, highest) = values(6, 4, 3, 3), WEIGHTS[name]

    def found(kind):
        module = WEIGHT_QUANTIZERS[name](bits, weight, QuantOptions(step_gradient=kind, weight_group=2))
        return slopes(module, weight)

    bare, factor = found("none"), FORMULAS[kind](2 * 36, 36, highest)
    assert bare
    for key, slope in found(kind).items():
        assert torch.allclose(slope, bare[key] * factor, rtol=1e-6)  # one float32 product


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_activations_learn(name, kind):
    value, (bits, highest) = values(2, 5, 4, 4), ACTIVATIONS[name]

    def found(kind):
        module = ACTIVATION_QUANTIZERS[name](bits, ActivationGrid.SYMMETRIC, QuantOptions(step_gradient=kind))
        module.calibrating = True
        module(value)
        module.calibrating = False
        return slopes(module, value)

    bare, factor = found("none"), FORMULAS[kind](5 * 16, 5, highest)
    assert bare
    for key, slope in found(kind).items():
        assert torch.allclose(slope, bare[key] * factor, rtol=1e-5, atol=1e-6), key  # widths add up to corners


def test_another_name_is_refused():
    with pytest.raises(UsageError, match="step gradient 'fan' does not exist; there are paper, none, fan-scale"):
        QuantOptions(step_gradient="fan")
    with pytest.raises(UsageError, match="weight norm 'std' does not exist; there are none, mean, var, var-mean"):
        QuantOptions(weight_norm="std")
