"""Scales move between units without changing the network; where they end, ranges are equal."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, SIZE, build, images
from schemes import SCHEMES
from torch import nn

from hawq.graph.interpret import run_float
from hawq.graph.trace import trace
from hawq.models import create_model
from hawq.ptq import METHODS, Workbench, parse_methods
from hawq.ptq.checkpoint import save_quantized
from hawq.ptq.methods.equalize import equalized
from hawq.ptq.pairs import find_pairs, input_range, output_range, scale_inputs
from hawq.qat.checkpoint import load_quantized
from hawq.qat.rewrites import folded_graph
from hawq.schemes import uniform


class Chain(nn.Module):
    """Every kind of pair: plain, depthwise with a multiplier, grouped, behind pools and a flatten."""

    def __init__(self, groups, multiplier, act):
        super().__init__()
        c = 2 * groups
        self.stem, self.norm = nn.Conv2d(3, c, 3, padding=1), nn.BatchNorm2d(c)
        self.deep = nn.Conv2d(c, c * multiplier, 3, padding=1, groups=c)
        self.grouped = nn.Conv2d(c * multiplier, c, 1, groups=groups)
        self.last, self.act = nn.Linear(c * 4, 5), act

    def forward(self, x):
        x = F.max_pool2d(self.act(self.norm(self.stem(x))), 2)
        x = self.grouped(F.avg_pool2d(self.act(self.deep(x)), 2))
        return self.last(F.max_pool2d(x, 2).flatten(1))


def uneven(model, seed):
    """Give the channels of a network ranges that differ by four orders of magnitude, one of them dead."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                factor = 10 ** (4 * torch.rand(len(module.weight), generator=generator) - 2)
                module.weight.normal_(generator=generator).mul_(factor.view(-1, *(1,) * (module.weight.dim() - 1)))
        model.stem.weight[1] = 0
    return model.eval()


def moved(graph, other, x):
    """Return the relative distance of the outputs of two networks."""
    with torch.no_grad():
        before, after = run_float(graph, x)[graph.output], run_float(other, x)[other.output]
    return float((after - before).norm() / before.norm())


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 2), st.sampled_from([nn.ReLU(), nn.ReLU6(), nn.Identity()]), st.integers(0, 99)
)
def test_the_network_stays_and_ranges_meet(groups, multiplier, act, seed):
    graph = trace(uneven(Chain(groups, multiplier, act), seed), (3, SIZE, SIZE))
    work = Workbench.of(graph, uniform("net", graph, 8))
    for method in parse_methods("limits,equalize"):
        work.apply(method)
    pairs = find_pairs(work.graph)
    assert [(pair.first, pair.second) for pair in pairs] == [("stem", "deep"), ("deep", "grouped"), ("grouped", "last")]
    assert pairs[-1].positions == 4
    assert moved(graph, work.graph, images(3)) < 1e-5
    for pair in pairs:
        first, second = (work.graph.tensors[work.graph.unit(name).weight] for name in (pair.first, pair.second))
        own = output_range(first)
        next_ = input_range(second, getattr(work.graph.unit(pair.second), "groups", 1), pair.positions)
        alive = (own > 0) & (next_ > 0)
        torch.testing.assert_close(own[alive], next_[alive], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "size"), [("mobilenetv2_w1", 224), ("resnet20_cifar10", 32)])
def test_real_networks_stay_to_five_digits(name, size):
    torch.manual_seed(0)
    graph = folded_graph(trace(create_model(name), (3, size, size)))
    work = Workbench(graph, uniform(name, graph, 8))
    for method in parse_methods("limits,equalize"):
        work.apply(method)
    assert len(find_pairs(work.graph)) >= 9
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    assert moved(graph, work.graph, x) < 1e-5


def test_columns_of_groups_are_scaled_where_they_belong():
    weight, factor = torch.ones(6, 2, 1, 1), torch.arange(1.0, 7)  # three groups of two outputs and two inputs
    scaled = scale_inputs(weight, 3, factor)[..., 0, 0]
    assert torch.equal(scaled, torch.tensor([[1.0, 2], [1, 2], [3, 4], [3, 4], [5, 6], [5, 6]]))
    assert torch.equal(input_range(scaled, 3), factor)


def test_a_tensor_with_two_readers_or_a_bounded_activation_is_no_pair():
    graph = trace(build("Residual"), (3, SIZE, SIZE))
    pairs = {(pair.first, pair.second) for pair in find_pairs(graph)}
    assert ("conv1", "conv2") in pairs
    assert not any(first in ("stem", "conv2", "down") for first, _ in pairs)  # read twice, or by an addition
    assert {pair.first for pair in find_pairs(trace(build("Inverted"), (3, SIZE, SIZE)))} == {"project"}


def test_moments_move_with_the_scales():
    graph = folded_graph(trace(build("Residual"), (3, SIZE, SIZE)))
    work = Workbench.of(trace(build("Residual"), (3, SIZE, SIZE)), SCHEMES["uniform8"](graph))
    moved, moments = equalized(work.graph, work.moments, find_pairs(work.graph))
    before, after = (g.tensors[g.unit("conv1").bias] for g in (work.graph, moved))
    scale = after / before
    assert float((scale - 1).abs().max()) > 0.1
    torch.testing.assert_close(moments["conv1"].mean, work.moments["conv1"].mean * scale, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moments["conv1"].std, work.moments["conv1"].std * scale, rtol=1e-4, atol=1e-5)
    assert moments["stem"] is work.moments["stem"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("names", ["limits,equalize,absorb", "relu,equalize", "clip-weights"])
def test_every_result_is_a_checkpoint_of_the_same_integers(name, names, tmp_path):
    graph = trace(build(name), (3, SIZE, SIZE))
    work = Workbench.of(graph, SCHEMES["mixed"](graph), images=lambda: [images(8)])
    model = work.run(parse_methods(f"{names},minmax"))
    save_quantized(tmp_path / "best.pt", model, names.split(","))
    again = load_quantized(tmp_path / "best.pt", graph)
    assert torch.equal(again.evaluator()(images(4, 3)), model.evaluator()(images(4, 3)))
    assert work.notes


def test_limits_are_cut_off_in_the_program_channel_by_channel():
    graph = trace(build("Inverted"), (3, SIZE, SIZE))
    work = Workbench.of(graph, SCHEMES["uniform8"](graph), images=lambda: [images(8) * 20])
    program = work.run(parse_methods("limits,equalize")).lower()
    limit = program.tensors["deep.limit"]
    assert len(set(limit.tolist())) > 1
    codes = work.model.evaluator().trace(images(8, 5) * 20)
    assert bool((codes["deep"] <= limit.view(-1, 1, 1)).all())
    assert torch.equal(codes["deep"], codes["deep.open"].minimum(limit.view(-1, 1, 1)))


def test_weights_are_clipped():
    graph = trace(build("Residual"), (3, SIZE, SIZE))
    graph.tensors["conv2.weight"].data[0] = 1e4
    work = Workbench.of(graph, SCHEMES["uniform8"](graph))
    work.apply(METHODS["clip-weights"])
    assert all(float(work.graph.tensors[work.graph.unit(unit).weight].abs().max()) <= 15 for unit in graph.units)
    assert work.notes[0].startswith(f"clipped {12 * 9} weights")


def test_removing_limits_tells_what_it_changes():
    graph = trace(build("Inverted"), (3, SIZE, SIZE))
    work = Workbench.of(graph, SCHEMES["uniform8"](graph), images=lambda: [images(8) * 20])
    work.apply(METHODS["relu"])
    assert work.notes[0].startswith("4 upper limits removed; ")
    assert float(work.notes[0].split("; ")[1].split("%")[0]) > 0
