"""Stand-ins for the derivative of the sign."""

import math

import pytest
import torch

from hawq.errors import UsageError
from hawq.quantizers import QuantOptions
from hawq.quantizers.surrogates import SignGradient, binary_sign, substitute

POINTS = [-3.0, -1.0, -0.75, -0.25, -0.0, 0.0, 0.5, 1.0, 2.0]
SLOPES = {
    SignGradient.IDENTITY: [1.0] * 9,
    SignGradient.STE: [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
    SignGradient.TRIANGLE: [0.0, 0.0, 0.5, 1.5, 2.0, 2.0, 1.0, 0.0, 0.0],
    SignGradient.STE_SCALE: [0.0, 0.0] + [math.sqrt(9 / 5)] * 5 + [0.0, 0.0],
}


@pytest.mark.parametrize("gradient", SignGradient)
def test_the_sign_and_its_slopes(gradient):
    value, weight = torch.tensor(POINTS, requires_grad=True), torch.arange(1.0, 10.0)
    sign = binary_sign(value, gradient)
    assert sign.tolist() == [-1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0]  # zero counts as +1, whatever its sign
    (sign * weight).sum().backward()
    assert value.grad.equal(torch.tensor(SLOPES[gradient]) * weight)


def test_scaling_keeps_the_norm_of_a_gradient_of_random_signs():
    value = torch.randn(10000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    binary_sign(value, SignGradient.STE_SCALE).sum().backward()
    assert float(value.grad.norm()) == pytest.approx(100.0, rel=1e-5)  # a float32 sum


def test_scaling_survives_values_that_are_all_outside():
    value = torch.full((4,), 7.0, requires_grad=True)
    binary_sign(value, SignGradient.STE_SCALE).sum().backward()
    assert value.grad.tolist() == [0.0] * 4


def test_a_substitute_gets_the_gradient_and_the_value_stays():
    value, smooth = torch.tensor([0.1, 1e30], requires_grad=True), torch.tensor([5.0, 6.0], requires_grad=True)
    out = substitute(value, smooth)
    assert out.equal(value)
    (out * torch.tensor([2.0, 3.0])).sum().backward()
    assert value.grad is None
    assert smooth.grad.tolist() == [2.0, 3.0]


def test_an_unknown_gradient_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="'tanh' does not exist; there are identity, ste, triangle, ste-scale"):
        QuantOptions(sign_gradient="tanh")
