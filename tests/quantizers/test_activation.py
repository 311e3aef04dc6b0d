"""Activations: ranges, grids and the straight-through gradient."""

import pytest
import torch

from hawq.errors import HawqError
from hawq.quantizers import ActivationGrid, QuantOptions
from hawq.quantizers.fake import fake_quantize
from hawq.quantizers.minmax import MinMaxActivation


def observed(grid, low, high, bits=8, momentum=0.99):
    quantizer = MinMaxActivation(bits, grid, QuantOptions(act_range_momentum=momentum))
    quantizer.observe(torch.tensor([low, high]))
    return quantizer


@pytest.mark.parametrize(
    ("grid", "bits", "low", "high", "scale", "zero_point"),
    [
        (ActivationGrid.UNSIGNED, 8, 0.0, 2.55, 0.01, 0),
        (ActivationGrid.UNSIGNED, 4, 0.0, 3.0, 0.2, 0),
        (ActivationGrid.SYMMETRIC, 8, -2.54, 1.0, 0.02, 0),
        (ActivationGrid.SYMMETRIC, 16, -1.0, 3.2767, 1e-4, 0),
        (ActivationGrid.AFFINE, 8, -1.0, 1.55, 0.01, 100),
        (ActivationGrid.AFFINE, 4, 0.5, 3.0, 0.2, 0),  # widened to hold 0
        (ActivationGrid.AFFINE, 8, -2.55, -1.0, 0.01, 255),
    ],
)
def test_grids(grid, bits, low, high, scale, zero_point):
    found, zero = observed(grid, low, high, bits).scale_and_zero_point()
    assert float(found) == pytest.approx(scale, rel=1e-6)  # the expected scale is a float64 literal
    assert zero == zero_point


def test_the_first_batch_sets_the_range_and_later_ones_move_it():
    quantizer = observed(ActivationGrid.SYMMETRIC, -1.0, 1.0, momentum=0.75)
    quantizer.observe(torch.tensor([-3.0, 0.0]))
    assert (float(quantizer.low), float(quantizer.high)) == (-1.5, 0.75)
    running = observed(ActivationGrid.SYMMETRIC, -1.0, 1.0, momentum=-1)
    running.observe(torch.tensor([-3.0, 0.0]))
    assert (float(running.low), float(running.high)) == (-3.0, 1.0)


def test_a_calibration_keeps_the_extremes_and_starts_anew():
    quantizer = observed(ActivationGrid.SYMMETRIC, -9.0, 9.0, momentum=0.75)
    quantizer.start_calibration()
    quantizer.calibrating = True
    for batch in ([-1.0, 1.0], [-3.0, 0.0], [0.0, 2.0]):
        quantizer(torch.tensor(batch))
    assert (float(quantizer.low), float(quantizer.high), int(quantizer.seen)) == (-3.0, 2.0, 3)


def test_half_precision_is_quantized_in_float32():
    quantizer = observed(ActivationGrid.UNSIGNED, 0.0, 255.0).eval()
    value = torch.tensor([100.0, 0.25], dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert quantizer(value).dtype == torch.float32


def test_ranges_are_frozen_in_evaluation():
    quantizer = observed(ActivationGrid.UNSIGNED, 0.0, 1.0).eval()
    quantizer(torch.tensor([5.0]))
    assert float(quantizer.high) == 1.0
    quantizer.train()(torch.tensor([5.0]))
    assert float(quantizer.high) > 1.0


def test_an_unseen_or_broken_range_is_an_error():
    with pytest.raises(HawqError, match="calibrate or train"):
        MinMaxActivation(8, ActivationGrid.UNSIGNED, QuantOptions()).tensor_type((1,))
    with pytest.raises(HawqError, match="not finite"):
        observed(ActivationGrid.SYMMETRIC, -1.0, float("nan")).tensor_type((1,))


def test_a_constant_zero_tensor_has_a_scale():
    scale, _ = observed(ActivationGrid.UNSIGNED, 0.0, 0.0).scale_and_zero_point()
    assert float(scale) > 0


def test_the_gradient_passes_rounding_and_clipping():
    value = torch.tensor([-3.0, 0.26, 0.5, 9.0], requires_grad=True)
    out = fake_quantize(value, torch.tensor(0.5), 0, 0, 15)
    assert out.tolist() == [0.0, 0.5, 0.5, 7.5]
    (out * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert value.grad.tolist() == [1.0, 2.0, 3.0, 4.0]
