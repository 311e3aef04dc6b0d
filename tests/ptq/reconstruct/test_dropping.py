"""Values are dropped with the probability that is asked for; none or all are the plain cases."""

import pytest
import torch

from hawq.ptq.reconstruct.dropping import DroppingRange, mix
from hawq.quantizers import ActivationGrid, QuantOptions, activation_quantizer

VALUE = torch.randn(40, 50, generator=torch.Generator().manual_seed(1))


def calibrated(grid=ActivationGrid.SYMMETRIC):
    quantizer = activation_quantizer("mse")(4, grid, QuantOptions())
    quantizer.calibrating = True
    quantizer(VALUE)
    return quantizer.eval()


def dropping(drop, grid=ActivationGrid.SYMMETRIC):
    return DroppingRange(calibrated(grid), drop, torch.Generator().manual_seed(0)).eval()


def test_mixtures_of_nothing_and_of_everything():
    generator = torch.Generator().manual_seed(0)
    quantized, real, state = torch.zeros(7, 11), torch.ones(7, 11), generator.get_state()
    assert mix(quantized, real, 0.0, generator).equal(quantized)
    assert mix(quantized, real, 1.0, generator).equal(real)
    assert generator.get_state().equal(state)


@pytest.mark.parametrize("drop", [0.25, 0.5])
def test_the_share_of_dropped_values(drop):
    mixed = mix(torch.zeros(1000, 100), torch.ones(1000, 100), drop, torch.Generator().manual_seed(0))
    assert set(mixed.unique().tolist()) == {0.0, 1.0}
    assert abs(float(mixed.mean()) - drop) < 0.0079  # 5 standard deviations of 100,000 draws at 1/2


@pytest.mark.parametrize("grid", ActivationGrid)
def test_with_nothing_dropped_it_begins_as_the_quantizer_before(grid):
    torch.testing.assert_close(dropping(0.0, grid)(VALUE), calibrated(grid)(VALUE), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("drop", [0.5, 1.0])
def test_dropped_values_and_their_gradients_pass(drop):
    value, quantizer = VALUE.clone().requires_grad_(), dropping(drop)
    out = quantizer(value)
    passed = out == value
    weights = torch.randn(VALUE.shape, generator=torch.Generator().manual_seed(2))
    (out * weights).sum().backward()
    assert float(passed.float().mean()) == pytest.approx(drop, abs=0.06)  # 5 standard deviations of 2000 draws
    assert value.grad[passed].equal(weights[passed])
    plain, other = VALUE[~passed].clone().requires_grad_(), dropping(0.0)
    (other(plain) * weights[~passed]).sum().backward()
    assert out[~passed].equal(other(plain))
    assert value.grad[~passed].equal(plain.grad)
    torch.testing.assert_close(quantizer.step_size.grad, other.step_size.grad, rtol=1e-4, atol=1e-3)  # sums of floats
    torch.testing.assert_close(quantizer.offset.grad, other.offset.grad, rtol=1e-4, atol=1e-3)
