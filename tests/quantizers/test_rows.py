"""Rows of weights: groups of channels that share a scale, and what normalises them; the same for every quantizer."""

import pytest
import torch

from hawq.quantizers import WEIGHT_QUANTIZERS, QuantOptions

NAMES = sorted(name for name, cls in WEIGHT_QUANTIZERS.items() if not cls.scales_given)
NORMS = ["mean", "var", "var-mean"]


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights():
    """Return weights whose channels differ in mean and spread."""
    weight = values(6, 5, 3, 3) * torch.tensor([0.5, 1.0, 0.25, 2.0, 1.5, 0.7]).view(-1, 1, 1, 1)
    return weight + values(6, 1, 1, 1, seed=1) * 0.2


def quantizer(name, weight, **options):
    cls = WEIGHT_QUANTIZERS[name]
    return cls(2 if 2 in cls.widths else cls.widths[0], weight, QuantOptions(**options)).eval()


def quantized(module, weight, grad):
    """Return what a quantizer makes of weights, and their gradients."""
    leaf = weight.clone().requires_grad_()
    out = module(leaf)
    out.backward(grad)
    return out.detach(), leaf.grad


@pytest.mark.parametrize("group", [1, 2, 3, 6])
@pytest.mark.parametrize("name", NAMES)
def test_a_group_is_quantized_as_a_layer_of_its_own(name, group):
    weight, grad = weights(), values(6, 5, 3, 3, seed=2)
    whole = quantizer(name, weight, weight_group=group)
    found = quantized(whole, weight, grad)
    parts = [quantizer(name, part, weight_group=0) for part in weight.split(group)]
    expected = [quantized(*triple) for triple in zip(parts, weight.split(group), grad.split(group), strict=True)]
    assert found[0].equal(torch.cat([out for out, _ in expected]))
    assert found[1].equal(torch.cat([slope for _, slope in expected]))
    scale = torch.cat([q.scale(part) for q, part in zip(parts, weight.split(group), strict=True)])
    assert whole.scale(weight).equal(scale)
    learned = [dict(module.named_parameters()) for module in (whole, *parts)]
    for key, parameter in learned[0].items():
        assert len(parameter) == 6 // group
        slopes = torch.cat([of[key].grad for of in learned[1:]])
        assert torch.allclose(parameter.grad, slopes, rtol=1e-4, atol=1e-6)  # float32 sums in another order


@pytest.mark.parametrize("group", [1, 2, 0])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", NAMES)
def test_normalised_weights_are_quantized_and_their_deviation_is_put_back(name, norm, group):
    """q(w) = std Q((w - mean) / std), with std a constant to the gradient and the mean gone."""
    weight, grad = weights(), values(6, 5, 3, 3, seed=2)
    rows = weight.reshape(-1 if group else 1, 45 * (group or 6))
    shift = rows.mean(1, keepdim=True) if "mean" in norm else torch.zeros(len(rows), 1)
    deviation = (rows - shift).std(1, correction=0, keepdim=True) if "var" in norm else torch.ones(len(rows), 1)
    unit = ((rows - shift) / deviation).view_as(weight)

    module = quantizer(name, weight, weight_norm=norm, weight_group=group)
    plain = quantizer(name, unit, weight_group=group)
    out, slope = quantized(module, weight, grad)
    expected, inner = quantized(plain, unit, (grad.view_as(rows) * deviation).view_as(weight))
    assert out.equal((expected.view_as(rows) * deviation).view_as(weight))
    assert module.codes(weight)[0].equal(plain.codes(unit)[0])
    scale = plain.scale(unit) * deviation.expand(-1, group or 6).flatten()
    assert module.scale(weight).equal(scale)
    inner = inner.view_as(rows) / deviation
    inner = inner - inner.mean(1, keepdim=True) if "mean" in norm else inner
    assert torch.allclose(slope, inner.view_as(weight), rtol=1e-4, atol=1e-5)  # float32 sums in another order


@pytest.mark.parametrize("name", NAMES)
def test_what_is_learned_for_normalised_weights_follows_their_spread(name):
    """Weights eight times as large are eight times as large quantized, whatever was learned for the others."""
    weight = weights()
    module = quantizer(name, weight, weight_norm="var")
    assert module(weight * 8).equal(module(weight) * 8)  # powers of two are exact
    assert module.codes(weight * 8)[0].equal(module.codes(weight)[0])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", NAMES)
def test_a_dead_channel_stays_finite(name, norm):
    weight = weights()
    weight[1] = 0
    module = quantizer(name, weight, weight_norm=norm)
    codes, scale = module.codes(weight)
    assert bool(torch.isfinite(codes).all())
    assert bool(((scale > 0) & torch.isfinite(scale)).all())
    top = module(weight).detach().flatten(1).abs().amax(1)
    assert float(top[1]) <= 2**-7 * float(top.max())
