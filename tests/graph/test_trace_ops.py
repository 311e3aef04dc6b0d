"""Every op, in every form PyTorch has for it, becomes the same canonical node."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from tracing import Run, assert_same, kinds

from hawq.graph.ir import (
    Add,
    AvgPool2d,
    BatchNorm,
    Clamp,
    Concat,
    Conv2d,
    Linear,
    MaxPool2d,
    Norm,
    Relu,
    Resize,
)
from hawq.graph.trace import trace

SHAPE = (4, 12, 10)
RELU, RELU6 = Clamp(0.0, None), Clamp(0.0, 6.0)


def conv(cin=4, cout=6, kernel=3, **options):
    return nn.Conv2d(cin, cout, kernel, **{"padding": 1, **options})


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # PyTorch's note on speed
@pytest.mark.parametrize(
    ("options", "padding"),
    [
        ({"padding": 2}, (2, 2, 2, 2)),
        ({"padding": (0, 2)}, (0, 0, 2, 2)),
        ({"padding": "valid"}, (0, 0, 0, 0)),
        ({"padding": "same", "kernel": (4, 3)}, (1, 2, 1, 1)),
        ({"padding": "same", "kernel": (3, 2), "dilation": (2, 3)}, (2, 2, 1, 2)),
        ({"padding": 1, "stride": (2, 3), "dilation": 2, "groups": 2, "bias": False}, (1, 1, 1, 1)),
        ({"padding": 1, "cout": 8, "groups": 4}, (1, 1, 1, 1)),
    ],
)
def test_convolutions(options, padding):
    layer = conv(**options)
    op = assert_same(Run(lambda m, x: m.conv(x), conv=layer), SHAPE).nodes["conv"].op
    assert op == Conv2d("conv.weight", "conv.bias" if layer.bias is not None else None,
                        layer.stride, padding, layer.dilation, layer.groups)  # fmt: skip


def test_module_and_function_give_the_same_graph():
    def by_function(m, x):
        x = F.conv2d(x, m.conv.weight, m.conv.bias, padding=(1, 1))
        x = F.batch_norm(x, m.bn.running_mean, m.bn.running_var, m.bn.weight, m.bn.bias, eps=m.bn.eps)
        x = torch.relu(x).mean(dim=[-1, -2])
        return F.linear(x, m.fc.weight, m.fc.bias)

    def by_module(m, x):
        return m.fc(m.flat(m.pool(m.act(m.bn(m.conv(x))))))

    parts = {"conv": conv(), "bn": nn.BatchNorm2d(6, eps=1e-3), "fc": nn.Linear(6, 5)}
    graphs = [
        assert_same(Run(by_function, **parts), SHAPE),
        assert_same(Run(by_module, **parts, act=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()), SHAPE),
    ]
    first, second = ([(node.op, node.shape) for node in graph.nodes.values()] for graph in graphs)
    assert first == second
    norm = BatchNorm("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", 1e-3)
    assert graphs[0].nodes["conv"].op.norm == norm
    assert graphs[0].nodes["conv"].op.clamp == RELU


CLAMPS = {
    "relu": (lambda x: F.relu(x), RELU),
    "torch.relu": (lambda x: torch.relu(x), RELU),
    "method": (lambda x: x.relu(), RELU),
    "relu_": (lambda x: x.relu_(), RELU),
    "inplace module": (lambda x: nn.ReLU(inplace=True)(x), RELU),
    "clamp_min": (lambda x: x.clamp_min(0), RELU),
    "clamp min": (lambda x: torch.clamp(x, min=0.0), RELU),
    "infinite clamp": (lambda x: x.clamp(0, float("inf")), RELU),
    "relu6": (lambda x: F.relu6(x), RELU6),
    "relu6 module": (lambda x: nn.ReLU6()(x), RELU6),
    "hardtanh": (lambda x: nn.Hardtanh(0, 6, inplace=True)(x), RELU6),
    "clamp": (lambda x: x.clamp(0, 6), RELU6),
    "clip_": (lambda x: x.clip_(min=0, max=6), RELU6),
}


@pytest.mark.parametrize("form", CLAMPS)
def test_clamps(form):
    act, clamp = CLAMPS[form]
    graph = assert_same(Run(lambda m, x: act(m.conv(x)), conv=conv()), SHAPE)
    assert kinds(graph) == ["Conv2d"]
    assert graph.nodes["conv"].op.clamp == clamp


ADDS = {
    "+": lambda a, b: a + b,
    "operator": operator.add,
    "torch": torch.add,
    "method": lambda a, b: a.add(b),
    "in place": lambda a, b: a.add_(b),
    "+=": operator.iadd,
    "sum": lambda a, b: sum([a, b]),
}


@pytest.mark.parametrize("form", ADDS)
def test_sums_of_two(form):
    model = Run(lambda m, x: F.relu(ADDS[form](m.a(x), m.b(x))), a=conv(), b=conv())
    graph = assert_same(model, SHAPE)
    assert kinds(graph) == ["Conv2d", "Conv2d", "Add"]
    assert graph.nodes[graph.output].op == Add(RELU)
    assert graph.nodes[graph.output].inputs == ("a", "b")


def test_sum_of_three_is_two_sums():
    graph = assert_same(Run(lambda m, x: sum([m.a(x), m.b(x), m.c(x)]), a=conv(), b=conv(), c=conv()), SHAPE)
    assert kinds(graph) == ["Conv2d", "Conv2d", "Conv2d", "Add", "Add"]


@pytest.mark.parametrize("join", [torch.cat, torch.concat, torch.concatenate])
@pytest.mark.parametrize("dim", [1, -3])
def test_concats(join, dim):
    graph = assert_same(Run(lambda m, x: join([m.a(x), x, m.b(x)], dim=dim), a=conv(), b=conv(cout=3)), SHAPE)
    node = graph.nodes[graph.output]
    assert node.op == Concat()
    assert node.inputs == ("a", "input", "b")
    assert node.shape == (13, 12, 10)


def test_nested_concats_become_one_unless_something_else_reads_the_inner():
    parts = {"a": conv(), "b": conv(), "c": conv(12, 3, 1, padding=0)}
    flat = assert_same(Run(lambda m, x: torch.cat([torch.cat([m.a(x), m.b(x)], 1), x], 1), **parts), SHAPE)
    assert flat.nodes[flat.output].inputs == ("a", "b", "input")
    assert kinds(flat) == ["Conv2d", "Conv2d", "Concat"]

    def shared(m, x):
        inner = torch.cat([m.a(x), m.b(x)], 1)
        return torch.cat([inner, m.c(inner)], 1)

    nested = assert_same(Run(shared, **parts), SHAPE)
    assert kinds(nested) == ["Conv2d", "Conv2d", "Concat", "Conv2d", "Concat"]
    assert nested.nodes[nested.output].inputs == ("cat", "c")


RESIZES = {
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest to a size": lambda x: nn.Upsample((30, 21))(x),
    "nearest-exact": lambda x: F.interpolate(x, (17, 7), mode="nearest-exact"),
    "nearest by two factors": lambda x: F.interpolate(x, scale_factor=(1.7, 2.3)),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear with aligned corners": lambda x: nn.UpsamplingBilinear2d(scale_factor=2)(x),
    "bilinear to a size": lambda x: F.interpolate(x, size=(31, 19), mode="bilinear"),
    "bilinear by a factor": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    "bilinear, factor of the sizes": lambda x: F.interpolate(
        x, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True
    ),
    "bilinear to fewer": lambda x: F.interpolate(x, (5, 4), mode="bilinear", align_corners=True),
}


@pytest.mark.parametrize("form", RESIZES)
def test_resizes(form):
    graph = assert_same(Run(lambda m, x: RESIZES[form](m.conv(x)), conv=conv()), SHAPE)
    assert kinds(graph) == ["Conv2d", "Resize"]
    assert graph.nodes[graph.output].op.moves == form.startswith("nearest")


def test_a_single_pixel_is_spread_as_it_is():
    def call(m, x):
        return F.interpolate(x.mean((2, 3), keepdim=True), size=x.shape[2:], mode="bilinear", align_corners=False)

    graph = assert_same(Run(call), SHAPE)
    assert graph.nodes[graph.output].op == Resize((0.0,) * 12, (0.0,) * 10)


FLATTENS = {
    "torch": lambda x: torch.flatten(x, 1),
    "method": lambda x: x.flatten(1),
    "module": lambda x: nn.Flatten()(x),
    "view": lambda x: x.view(x.size(0), -1),
    "view shape": lambda x: x.view(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]),
    "reshape": lambda x: x.contiguous().reshape(len(x), -1),
    "-1 first": lambda x: x.view(-1, 480),
    "in two steps": lambda x: x.flatten(2).flatten(1),
    "there and back": lambda x: x.flatten(1).view(-1, 4, 12, 10).flatten(1),
}


@pytest.mark.parametrize("form", FLATTENS)
def test_flattens(form):
    graph = assert_same(Run(lambda m, x: m.fc(FLATTENS[form](x)), fc=nn.Linear(480, 5)), SHAPE, batch=3)
    assert kinds(graph) == ["Flatten", "Linear"]
    assert graph.nodes["fc"].op == Linear("fc.weight", "fc.bias")


def test_one_flatten_serves_all_readers():
    model = Run(lambda m, x: m.a(x.flatten(1)) + m.b(x.view(x.size(0), -1)), a=nn.Linear(480, 5), b=nn.Linear(480, 5))
    assert kinds(assert_same(model, SHAPE)) == ["Flatten", "Linear", "Linear", "Add"]


MEANS = {
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "adaptive pair": lambda x: nn.AdaptiveAvgPool2d((1, 1))(x).squeeze(3).squeeze(2),
    "mean": lambda x: x.mean((2, 3)),
    "mean keepdim": lambda x: torch.mean(x, dim=(3, 2), keepdim=True).squeeze(-1).squeeze(-1),
    "kernel": lambda x: F.avg_pool2d(x, x.shape[2:]).view(x.size(0), -1),
}


@pytest.mark.parametrize("form", MEANS)
def test_means_over_space(form):
    graph = assert_same(Run(lambda m, x: m.fc(MEANS[form](x)), fc=nn.Linear(4, 5)), SHAPE)
    assert kinds(graph) == ["AvgPool2d", "Flatten", "Linear"]
    pool = list(graph.nodes.values())[1]
    assert pool.op == AvgPool2d((12, 10), (12, 10), (0, 0, 0, 0), 120)
    assert pool.shape == (4, 1, 1)


@pytest.mark.parametrize(
    "pool", [nn.AdaptiveAvgPool2d((3, 5)), nn.AdaptiveAvgPool2d((None, 2)), nn.AdaptiveMaxPool2d(2)]
)
def test_adaptive_pools_that_tile_the_map(pool):
    op = list(assert_same(Run(lambda m, x: m.pool(x), pool=pool), SHAPE).nodes.values())[1].op
    assert isinstance(op, AvgPool2d | MaxPool2d)
    assert op.kernel == op.stride


def test_norms_alone_and_clamps_alone_stay():
    graph = assert_same(Run(lambda m, x: m.conv(F.relu(m.bn(x))), bn=nn.BatchNorm2d(4), conv=conv()), SHAPE)
    assert kinds(graph) == ["Norm", "Conv2d"]
    assert graph.nodes["bn"].op.clamp == RELU
    assert graph.nodes["conv"].op.norm is None
    pooled = assert_same(Run(lambda m, x: F.relu(F.max_pool2d(x, 2))), SHAPE)
    assert kinds(pooled) == ["MaxPool2d", "Relu"]
    assert pooled.nodes[pooled.output].op == Relu(RELU)


def test_norm_without_affine_parameters():
    graph = assert_same(Run(lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=nn.BatchNorm2d(6, affine=False)), SHAPE)
    assert graph.nodes["conv"].op.norm == BatchNorm(None, None, "bn.running_mean", "bn.running_var", 1e-5)


def test_norm_of_a_linear_layer():
    model = Run(lambda m, x: F.relu(m.bn(m.fc(x.flatten(1)))), fc=nn.Linear(480, 7), bn=nn.BatchNorm1d(7))
    graph = assert_same(model, SHAPE)
    assert kinds(graph) == ["Flatten", "Linear"]
    assert graph.nodes["fc"].op.norm is not None


def test_nothing_is_fused_across_a_second_reader():
    def call(m, x):
        y = m.conv(x)
        return m.bn(y) + y

    assert kinds(assert_same(Run(call, conv=conv(), bn=nn.BatchNorm2d(6)), SHAPE)) == ["Conv2d", "Norm", "Add"]

    def raw_and_clamped(m, x):
        y = m.conv(x)
        return F.relu(y) + y

    assert kinds(assert_same(Run(raw_and_clamped, conv=conv()), SHAPE)) == ["Conv2d", "Relu", "Add"]


def test_norm_behind_a_clamp_is_not_the_convolutions():
    graph = assert_same(Run(lambda m, x: m.bn(F.relu(m.conv(x))), conv=conv(), bn=nn.BatchNorm2d(6)), SHAPE)
    assert kinds(graph) == ["Conv2d", "Norm"]
    assert isinstance(graph.nodes["bn"].op, Norm)


def test_what_does_nothing_goes():
    def call(m, x):
        x = m.drop2d(m.identity(m.drop(m.conv(x).contiguous()))).clone().detach().float()
        x = F.dropout(x, training=m.training).to(torch.float32)
        return m.alpha(F.pad(x, (0, 0, 0, 0)) + 0)

    parts = {"drop": nn.Dropout(0.5), "drop2d": nn.Dropout2d(), "alpha": nn.AlphaDropout(), "identity": nn.Identity()}
    assert kinds(assert_same(Run(call, conv=conv(), **parts), SHAPE)) == ["Conv2d"]


def test_dead_branches_go():
    def call(m, x):
        m.unused(x)
        return m.conv(x)

    assert kinds(assert_same(Run(call, conv=conv(), unused=conv()), SHAPE)) == ["Conv2d"]


def test_shapes_are_numbers_while_tracing():
    def call(m, x):
        torch._assert(x.dim() == 4, "images")
        assert x.shape[1] == 4
        assert x.ndim == len(x.shape) == 4
        assert x.is_floating_point()
        assert x.dtype == torch.float32
        return m.conv(x) if x.size(2) > x.size(3) else x

    assert kinds(assert_same(Run(call, conv=conv()), SHAPE)) == ["Conv2d"]


def in_place_on_an_alias(m, x):
    y = m.conv(x)
    kept = y.view(y.shape)
    F.relu(y, inplace=True)
    return m.other(y) + kept  # kept is y: clamped too


def in_place_on_a_copy(m, x):
    y = m.conv(x)
    kept = y.clone()
    y += m.other(x.relu())
    return y.relu() + kept


@pytest.mark.parametrize("call", [in_place_on_an_alias, in_place_on_a_copy])
def test_in_place_ops_change_what_shares_their_memory(call):
    cin = 6 if call is in_place_on_an_alias else 4
    assert_same(Run(call, conv=conv(), other=conv(cin)), SHAPE)


def test_names_are_module_paths():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.kernel = conv(4, 4), nn.Parameter(torch.randn(4, 4, 1, 1))

        def forward(self, x):
            return F.relu(F.conv2d(self.conv(x), self.kernel)) + x + x

    graph = assert_same(nn.Sequential(Block(), nn.MaxPool2d(2)), SHAPE)
    assert list(graph.nodes) == ["input", "0.conv", "0.kernel", "0.add", "0.add_2", "1"]


def test_the_model_is_left_alone():
    model = Run(lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=nn.BatchNorm2d(6))
    model.train()
    model.bn.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = trace(model, SHAPE)
    assert [m.training for m in (model, model.conv, model.bn)] == [True, True, False]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert graph.tensors["conv.weight"] is model.conv.weight
