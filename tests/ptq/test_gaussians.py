"""Moments behind a clamp against sampling, and what follows from them through a network."""

import pytest
import torch
from networks import SIZE, build, images
from schemes import SCHEMES

from hawq.errors import UsageError
from hawq.graph.interpret import run_float
from hawq.graph.trace import trace
from hawq.ptq import METHODS, Moments, Workbench, parse_methods
from hawq.ptq.gaussians import censored, follow, mean_response, normalised
from hawq.ptq.ranges import expected_ranges
from hawq.qat.fold import NormState
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
    before = (work.model._simulate(x).mean(0) - wanted).detach().abs().max()
    work.apply(METHODS["bias-correction-data"])
    after = (work.model._simulate(x).mean(0) - wanted).abs().max()
    assert float(before) > 1e-3
    assert float(after) < 1e-5


def test_ranges_without_images_hold_nearly_all_values():
    graph = trace(build("Inverted"), (3, SIZE, SIZE))
    work = Workbench.of(graph, SCHEMES["uniform8"](graph))
    ranges = expected_ranges(work.graph, work.moments, (-3.0, 3.0))
    assert ranges["input"] == (-3.0, 3.0)
    moments = follow(work.graph, work.moments)["stem"].before
    assert ranges["stem"][0] == 0.0
    assert ranges["stem"][1] == min(6.0, float((moments.mean + 6 * moments.std).max()))
    signed = follow(work.graph, work.moments)["project"].before
    assert ranges["project"][0] == float((signed.mean - 6 * signed.std).min()) < 0
    low, high = work.model.stored_quantizer("project").low, work.model.stored_quantizer("project").high
    assert (float(low), float(high)) == ranges["project"]


@pytest.mark.parametrize("name", ["Residual", "Branches", "Inverted", "Dense"])
def test_a_network_is_quantized_without_an_image(name):
    graph = trace(build(name), (3, SIZE, SIZE))
    work = Workbench.of(graph, SCHEMES["uniform8"](graph), image_range=(-4.0, 4.0))
    model = work.run(parse_methods("limits,equalize,minmax,bias-correction"))
    x = images(8)
    wanted = run_float(graph, x)[graph.output]
    assert model.evaluator()(x).shape == wanted.shape
    assert float((model(x) - wanted).square().mean() / wanted.var()) < 0.3


def test_concatenations_reach_as_far_as_their_parts():
    graph = folded_graph(trace(build("Branches"), (3, SIZE, SIZE)))
    ranges = expected_ranges(graph, {}, (-2.0, 2.0))
    joined = next(node for node in graph.nodes.values() if len(node.inputs) > 1)
    assert ranges[joined.name][1] == max(ranges[name][1] for name in joined.inputs)


def test_rules_that_need_images_say_so():
    graph = trace(build("Residual"), (3, SIZE, SIZE))
    work = Workbench.of(graph, SCHEMES["uniform8"](graph))
    with pytest.raises(UsageError, match="needs images"):
        work.run(parse_methods("mse"))


def test_moments_are_used_where_they_are_asked_for():
    graph = trace(build("Residual"), (3, SIZE, SIZE))
    models = [
        Workbench.of(graph, SCHEMES["uniform8"](graph), images=found).run(parse_methods("statistics"))
        for found in (None, lambda: [images(8)])
    ]
    assert torch.equal(*(model.evaluator()(images(4)) for model in models))


def test_a_channel_that_was_dead_in_training_does_not_vary():
    norm = NormState(torch.ones(2), torch.ones(2), torch.zeros(2), torch.tensor([1.0, 1e-12]), 1e-5)
    torch.testing.assert_close(normalised(norm).std, torch.tensor([1.0, 3.162e-4]), rtol=1e-4, atol=0)


def test_a_channel_without_weights_does_not_vary_whatever_its_batch_norm_says():
    graph = trace(build("Residual"), (3, SIZE, SIZE))  # the first convolution's channel 1 has no weights
    work = Workbench.of(graph, SCHEMES["uniform8"](graph))
    assert float(work.moments["stem"].std[1]) > 0.1
    spread = follow(work.graph, work.moments)["stem"].before
    assert float(spread.std[1]) == 0.0
    assert bool((spread.std <= work.moments["stem"].std).all())
