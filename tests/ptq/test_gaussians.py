"""Moments behind a clamp against sampling, and what follows from them through a network."""

import pytest
import torch
from networks import SIZE, build, images
from schemes import SCHEMES

from hawq.graph.interpret import run_float
from hawq.graph.trace import trace
from hawq.ptq import METHODS, Moments, Workbench
from hawq.ptq.gaussians import censored, follow, mean_response
from hawq.qat.rewrites import folded_graph


@pytest.mark.parametrize(("lo", "hi"), [(0.0, None), (0.0, 6.0), (None, 2.0), (0.0, torch.tensor([1.0, 6.0, 0.5]))])
def test_moments_behind_a_clamp_are_those_of_samples(lo, hi):
    moments = Moments(torch.tensor([-1.0, 4.0, 0.3]), torch.tensor([2.0, 3.0, 0.1]))
    x = moments.mean + moments.std * torch.randn(2_000_000, 3, generator=torch.Generator().manual_seed(0))
    y = x if lo is None else x.clamp(min=lo)
    y = y if hi is None else y.minimum(torch.as_tensor(hi))
    found = censored(moments, lo, hi)
    torch.testing.assert_close(found.mean, y.mean(0), rtol=0, atol=4e-3)  # 2.8 standard errors of the widest
    torch.testing.assert_close(found.std, y.std(0), rtol=0, atol=4e-3)


def test_a_channel_that_never_varies_is_its_clamped_mean():
    found = censored(Moments(torch.tensor([-1.0, 2.0, 9.0]), torch.zeros(3)), 0.0, 6.0)
    torch.testing.assert_close(found.mean, torch.tensor([0.0, 2.0, 6.0]))
    torch.testing.assert_close(found.std, torch.zeros(3))


def test_the_published_formula_of_relu():
    beta, gamma = torch.tensor([0.7, -0.2]), torch.tensor([1.3, 0.4])
    normal = torch.distributions.Normal(0.0, 1.0)
    density = torch.exp(normal.log_prob(-beta / gamma))
    expected = gamma * density + beta * (1 - normal.cdf(-beta / gamma))
    torch.testing.assert_close(censored(Moments(beta, gamma), 0.0, None).mean, expected)


def test_mean_response_is_a_convolution_of_constant_maps():
    weight, mean = torch.randn(6, 2, 3, 3), torch.randn(6)
    flat = torch.nn.functional.conv2d(mean.view(1, 6, 1, 1).expand(1, 6, 5, 5), weight, groups=3)[0, :, 1, 1]
    torch.testing.assert_close(mean_response(weight, mean, 3), flat)


@pytest.mark.parametrize("name", ["Residual", "Branches", "Inverted", "Dense"])
def test_every_tensor_has_moments(name):
    graph = trace(build(name), (3, SIZE, SIZE))
    work = Workbench.of(graph, SCHEMES["uniform8"](graph))
    spreads = follow(work.graph, work.moments)
    for name, value in run_float(work.graph, images(4)).items():
        assert len(spreads[name].after.mean) == value.shape[1], name
        assert bool((spreads[name].after.std >= 0).all())


def test_a_layer_without_batch_norm_follows_from_its_input():
    graph = folded_graph(trace(build("Branches"), (3, SIZE, SIZE)))
    spreads, x = follow(graph, {}), torch.randn(64, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    seen = run_float(graph, x)["stem"].transpose(0, 1).flatten(1)
    torch.testing.assert_close(spreads["stem"].after.mean, seen.mean(1), rtol=0.1, atol=0.05)
    torch.testing.assert_close(spreads["stem"].after.std, seen.std(1), rtol=0.15, atol=0.05)


def test_bias_correction_is_the_published_formula():
    graph = trace(build("Residual"), (3, SIZE, SIZE))
    work = Workbench.of(graph, SCHEMES["uniform4"](graph), images=lambda: [images(8)])
    unit, before = work.model.unit("conv2"), work.model.unit("conv2").bias.clone()
    work.apply(METHODS["bias-correction"])
    error = (unit.quantizer(unit.weight) - work.graph.tensors["conv2/weight"]).sum((2, 3))
    mean = follow(work.graph, work.moments)["conv1"].after.mean
    torch.testing.assert_close(unit.bias, before - error @ mean)
    assert float((unit.bias - before).detach().abs().max()) > 1e-3


def test_correction_with_images_makes_means_equal():
    graph = trace(build("Inverted"), (3, SIZE, SIZE))
    work = Workbench.of(graph, SCHEMES["uniform4"](graph), images=lambda: [images(8), images(5, 2)])
    x = torch.cat([images(8), images(5, 2)])
    wanted = run_float(work.graph, x)[graph.output].mean(0)
    before = (work.model._simulate(x).mean(0) - wanted).abs().max()
    work.apply(METHODS["bias-correction-data"])
    after = (work.model._simulate(x).mean(0) - wanted).abs().max()
    assert float(before) > 1e-3
    assert float(after) < 1e-5
