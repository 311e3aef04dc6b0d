"""Learned roundings begin at the float weight and end on one of its two neighbours."""

import pytest
import torch

from hawq.ptq.reconstruct.rounding import LearnedRounding
from hawq.quantizers import QuantOptions
from hawq.quantizers.weight import per_channel, quantize_weight, weight_limit, weight_scale


def made(bits=4, shrink=1.0, limit=None):
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    scale = weight_scale(weight, bits) * shrink
    limits = torch.full((6,), float(weight_limit(bits) if limit is None else limit))
    return weight, scale, LearnedRounding(bits, weight, scale, limits, QuantOptions())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_it_begins_at_the_float_weight_and_at_the_nearest_codes(bits):
    weight, scale, rounding = made(bits)
    torch.testing.assert_close(rounding(weight), weight, atol=1e-5, rtol=1e-5)  # a sigmoid and its inverse
    assert rounding.rounded().equal(quantize_weight(weight, scale, bits).float())


def test_codes_are_neighbours_of_the_weight_whatever_is_learned():
    weight, scale, rounding = made()
    with torch.no_grad():
        rounding.logit.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 5)
    ratio = weight / per_channel(scale, weight)
    assert ((rounding.rounded() == ratio.floor()) | (rounding.rounded() == ratio.floor() + 1)).all()
    assert not rounding.rounded().equal(ratio.round())


def test_codes_stay_within_their_limit():
    weight, _, rounding = made(shrink=0.3, limit=5)
    assert rounding.rounded().abs().max() == 5
    scaled = rounding(weight) / per_channel(rounding.scales, weight)
    assert float(scaled.detach().abs().max()) <= 5 + 1e-5  # a division that a product came from


def test_a_scale_that_channels_share_stays_shared():
    weight, scale, rounding = made()
    assert rounding.gain.shape == scale.shape
    alike = LearnedRounding(4, weight, scale.amax().expand(6), torch.full((6,), 7.0), QuantOptions())
    assert alike.gain.shape == (1,)
    with torch.no_grad():
        rounding.gain.fill_(0.1)
        alike.gain.fill_(0.1)
    torch.testing.assert_close(rounding.scales, scale * 1.1051709)
    assert alike.scales.unique().numel() == 1


def test_indecision_is_what_its_formula_says_and_vanishes_once_decided():
    _, _, rounding = made()
    with torch.no_grad():
        rounding.logit.zero_()
    assert float(rounding.indecision(2.0)) == rounding.logit.numel()  # h = 1/2 everywhere
    with torch.no_grad():
        rounding.logit.fill_(0.5)
    share = 1.2 / (1 + torch.tensor(-0.5).double().exp()) - 0.1
    expected = rounding.logit.numel() * (1 - (2 * share - 1).abs() ** 3)
    assert float(rounding.indecision(3.0)) == pytest.approx(float(expected), rel=1e-5)
    with torch.no_grad():
        rounding.logit.copy_(torch.where(torch.rand(rounding.logit.shape) < 0.5, -9.0, 9.0))
    assert float(rounding.indecision(3.0)) == 0
