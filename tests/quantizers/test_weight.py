"""Weights: symmetric, per channel, and safe for channels that are dead."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hawq.integer.arithmetic import dyadic
from hawq.quantizers.weight import bias_floor, quantize_weight, weight_limit, weight_scale


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**16))
def test_the_largest_weight_of_a_channel_is_the_largest_code(bits, seed):
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    codes = quantize_weight(weight, weight_scale(weight, bits), bits)
    assert codes.flatten(1).abs().amax(1).tolist() == [weight_limit(bits)] * 5


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**16))
def test_every_weight_is_within_half_a_step(bits, seed):
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
    scale = weight_scale(weight, bits)
    error = (quantize_weight(weight, scale, bits) * scale[:, None] - weight).abs()
    assert bool((error <= scale[:, None] * 0.5 * (1 + 1e-5)).all())  # float32 division and product round


def test_quantizing_twice_changes_nothing():
    weight = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    scale = weight_scale(weight, 4)
    codes = quantize_weight(weight, scale, 4)
    assert quantize_weight(codes * scale[:, None], scale, 4).tolist() == codes.tolist()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_dead_channels_get_zero_codes_and_a_scale_that_stays_dyadic(bits):
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    weight[1] = 0
    weight[2] *= 1e-12
    scale = weight_scale(weight, bits)
    assert quantize_weight(weight, scale, bits)[1:].abs().max() == 0
    dyadic(scale.double() * 0.02 / 0.05)
    assert weight_scale(torch.zeros(2, 3), bits).equal(torch.ones(2) / weight_limit(bits))


def test_bias_floor_keeps_the_bias_in_int32():
    bias, sx = torch.tensor([0.0, 1.0, -300.0]), torch.tensor(0.01)
    floor = bias_floor(bias, sx)
    codes = bias[1:].double() / (floor[1:].double() * 0.01)
    assert bool((codes.abs() < 2**30).all())
    assert floor[0] == 0
