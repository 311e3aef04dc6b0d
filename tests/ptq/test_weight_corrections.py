"""Moments of quantized weights: what the corrections restore, and that they stay on the grid."""

import pytest
import torch
from networks import NETWORKS, SIZE, build, images
from schemes import SCHEMES

from hawq.graph.trace import trace
from hawq.integer import ReferenceExecutor
from hawq.ptq import Workbench, parse_methods
from hawq.ptq.checkpoint import save_quantized
from hawq.ptq.methods.weight_corrections import balanced
from hawq.ptq.weights import quantized_weights
from hawq.qat.checkpoint import load_quantized


def ran(methods, name="Residual", scheme="mixed", **settings):
    graph = trace(build(name), (3, SIZE, SIZE))
    work = Workbench.of(graph, SCHEMES[scheme](graph), images=lambda: [images(8)], **settings)
    work.run(parse_methods(methods))
    return work, graph


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_sums_are_met_and_no_weight_errs_by_a_step(bits):
    limit = 2 ** (bits - 1) - 1
    steps = values(50, 73) * limit / 3
    steps = steps.clamp(-limit, limit)
    before, limits = torch.round(steps), torch.full((50,), float(limit))
    codes = balanced(steps, before, limits)
    assert codes.sum(1).equal(torch.round(steps.double().sum(1)).float())
    assert float((codes - steps).abs().max()) < 1
    assert int(codes.abs().max()) <= limit
    moved = (codes != before).sum(1)
    assert moved.equal(torch.round((before - steps).double().sum(1).abs()).long())  # and no more than it takes


def test_those_farthest_from_their_code_move():
    steps = torch.tensor([[0.6, 0.9, 1.55, 2.0, 0.95]])
    assert balanced(steps, torch.round(steps), torch.tensor([7.0])).tolist() == [[1, 1, 1, 2, 1]]


def test_codes_at_their_limit_stay():
    steps = torch.tensor([[3.4, 3.3, 3.3, 0.1]])  # clipped at 3, they miss 1 in all
    assert balanced(steps, torch.tensor([[3.0, 3, 3, 0]]), torch.tensor([3.0])).tolist() == [[3, 3, 3, 1]]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rule", ["minmax", "mse"])
def test_means_and_deviations_come_back(name, rule):
    work, _ = ran(f"{rule},weight-variance,weight-mean", name)
    for weights in quantized_weights(work):
        sums = ((weights.codes - weights.real / weights.scale[:, None]).double()).sum(1)
        clipped = (weights.real / weights.scale[:, None]).abs().amax(1) > weights.limits + 0.5
        assert float(sums[~clipped].abs().max()) <= 0.51, weights.unit  # half a step, and float32
    work, _ = ran(f"{rule},weight-variance", name)
    for weights in quantized_weights(work):
        found = (weights.codes * weights.scale[:, None]).std(1, correction=0)
        wanted, alive = weights.real.std(1, correction=0), weights.codes.std(1, correction=0) > 0
        torch.testing.assert_close(found[alive], wanted[alive], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_and_channels_have_their_sums(name):
    work, graph = ran("minmax,squant", name, "uniform4")
    kernels = 0
    for weights in quantized_weights(work):
        error = weights.codes - weights.real / weights.scale[:, None]
        assert float(error.sum(1).abs().max()) <= 0.51, weights.unit  # half a step, and float32
        assert float(error.abs().max()) < 1.01, weights.unit
        shape = graph.weight_shape(weights.unit)
        sums = error.view(*shape[:2], -1).sum(2).abs()
        if len(shape) == 4 and shape[2] * shape[3] > 1:
            kernels += sums.numel()
            assert float((sums <= 0.51).float().mean()) > 0.8, weights.unit  # channels then moved a few
    assert kernels


@pytest.mark.parametrize("name", NETWORKS)
def test_corrected_networks_are_integers_and_checkpoints(name, tmp_path):
    work, graph = ran("mse,weight-variance,weight-mean", name)
    model = work.model
    logits = model(images(4))
    assert logits.equal(ReferenceExecutor(model.lower()).logits(images(4)))
    save_quantized(tmp_path / "best.pt", model, [])
    assert load_quantized(tmp_path / "best.pt", graph)(images(4)).equal(logits)


def test_levels_of_a_table_are_left_alone():
    plain, _ = ran("kmeans", scheme="uniform4")
    corrected, _ = ran("kmeans,weight-variance,weight-mean", scheme="uniform4")
    units = {"conv1", "conv2", "conv3", "down"}
    assert {w.unit for w in quantized_weights(plain)} == {"stem", "head"}  # pinned, by min-max
    for unit in units:
        assert corrected.model.unit(unit).quantizer.levels.equal(plain.model.unit(unit).quantizer.levels)
