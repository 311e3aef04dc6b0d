"""Domains, ties, streams and pinned units follow from the graph."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from tracing import Run

from hawq.graph.curves import Curve
from hawq.graph.ir import Add, Clamp, Conv2d, Flatten, FloatGraph, Input, Mul, Node, Resize, Unary
from hawq.graph.signs import non_negative
from hawq.graph.structure import find_domains, pinned_units, tie_groups
from hawq.graph.trace import trace
from hawq.models import create_model

NOTES = Path(__file__).parents[3] / "shared" / "notes"
SHAPE = (4, 8, 8)


def conv(cin=4, cout=4):
    return nn.Conv2d(cin, cout, 3, padding=1)


def graph_of(call, **modules):
    return trace(Run(call, **modules), SHAPE)


def test_a_tensor_dies_after_its_last_reader_and_an_output_never():
    def call(net, x):
        stem = net.stem(x)
        return {"sum": net.a(stem) + stem, "other": net.b(x)}

    graph = graph_of(call, stem=conv(), a=conv(), b=conv())
    assert graph.dies_after() == {"input": [], "stem": [], "a": [], "add": ["a", "stem"], "b": ["input"]}


def published(file):
    if not (NOTES / file).exists():
        pytest.skip(f"{file} is not here: it lies in ../shared/notes beside the repository")
    return json.loads((NOTES / file).read_text())


@pytest.mark.parametrize(("arch", "count"), [("resnet18", 21), ("resnet50", 54)])
def test_units_equal_the_published_layers(arch, count):
    graph = trace(create_model(arch), (3, 224, 224))
    found = []
    for name, node in graph.units.items():
        bias = graph.tensors[node.op.bias].numel() if node.op.bias else 0
        shape = list(graph.tensors[node.op.weight].shape)
        found.append(
            {"name": name, "weights": graph.weights(name), "bias": bias, "macs": graph.macs(name), "shape": shape}
        )
    layers = published("published_bit_configs.json")["layers"][arch]
    assert len(layers) == count
    assert sorted(found, key=lambda row: row["name"]) == sorted(layers, key=lambda row: row["name"])
    assert pinned_units(graph) == {"features.init_block.conv.conv", "output"}


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_ties_equal_the_published_ones(arch):
    graph = trace(create_model(arch), (3, 224, 224))
    pairs = published("published_ilp_inputs.json")["models"][arch]["tied_pairs"]
    assert {frozenset(group) for group in tie_groups(graph)} == {frozenset(pair) for pair in pairs}


def test_resnet_keeps_what_its_additions_read_and_make_in_16_bits():
    graph = trace(create_model("resnet18"), (3, 224, 224))
    domains = find_domains(graph)
    adds = [node for node in graph.nodes.values() if isinstance(node.op, Add)]
    assert len(adds) == 8
    expected = {domains[name].root for node in adds for name in (node.name, *node.inputs)}
    assert {domain.root for domain in domains.values() if domain.stream} == expected
    stem = domains["features.init_block.pool"]
    assert stem.members == ("features.init_block.conv.conv", "features.init_block.pool")
    assert stem.root == "features.init_block.conv.conv"
    assert stem.readers == ("features.stage1.unit1.body.conv1.conv",)
    assert stem.stream
    assert not stem.signed
    assert domains["features.stage1.unit1.body.conv2.conv"].signed  # before the addition's ReLU
    assert not domains["features.stage1.unit1.body.conv1.conv"].stream
    assert domains["output"].accumulator
    assert sum(domain.accumulator for domain in dict.fromkeys(domains.values())) == 1
    assert domains["input"].is_input
    assert domains["input"].signed


def test_every_tensor_has_the_domain_that_lists_it():
    for arch in ("squeezenet_v1_1", "mobilenetv2_w1"):
        graph = trace(create_model(arch), (3, 224, 224))
        domains = find_domains(graph)
        assert list(domains) == list(graph.nodes)
        assert all(name in domain.members for name, domain in domains.items())
        members = [name for domain in dict.fromkeys(domains.values()) for name in domain.members]
        assert sorted(members) == sorted(graph.nodes)


def test_a_concat_gives_its_scale_to_what_only_it_reads():
    def call(m, x):
        y = F.relu(m.stem(x))
        joined = torch.cat([F.max_pool2d(F.relu(m.a(y)), 2), F.max_pool2d(y, 2), F.relu(m.b(F.max_pool2d(y, 2)))], 1)
        return m.head(joined)

    graph = graph_of(call, stem=conv(), a=conv(), b=conv(), head=conv(12, 3))
    domains = find_domains(graph)
    joined = domains["cat"]
    assert joined.root == "cat"
    # y has readers of its own, so its pooled copy keeps y's scale and is requantized into the concat
    assert joined.members == ("a", "max_pool2d", "b", "cat")
    assert domains["stem"].members == ("stem", "max_pool2d_2", "max_pool2d_3")
    assert domains["stem"].root == "stem"
    assert domains["stem"].readers == ("a", "b")
    assert joined.readers == ("head",)
    assert not joined.signed
    assert tie_groups(graph) == [("a", "b")]


def test_concats_inside_concats_share_the_last_ones_scale():
    def call(m, x):
        inner = F.max_pool2d(torch.cat([m.a(x), F.relu(m.b(x))], 1), 2)
        return m.head(torch.cat([inner, F.max_pool2d(m.c(x), 2)], 1))

    graph = graph_of(call, a=conv(), b=conv(), c=conv(), head=conv(12, 3))
    domain = find_domains(graph)["a"]
    assert domain.root == "cat_2"
    assert domain.members == ("a", "b", "cat", "max_pool2d", "c", "max_pool2d_2", "cat_2")
    assert domain.signed  # a has no ReLU
    assert not domain.stream


def test_the_image_keeps_its_own_scale_in_a_concat():
    graph = graph_of(lambda m, x: m.head(torch.cat([x, m.a(x)], 1)), a=conv(), head=conv(8, 3))
    domains = find_domains(graph)
    assert domains["input"].members == ("input",)
    assert domains["a"].root == "cat"
    assert pinned_units(graph) == {"a", "head"}
    pooled = torch.nn.MaxPool2d(3, 1, 1)
    graph = graph_of(lambda m, x: m.head(m.b(torch.cat([x, m.pool(x)], 1))), b=conv(8), head=conv(), pool=pooled)
    assert find_domains(graph)["input"].members == ("input", "pool")


def test_lone_norms_make_streams():
    graph = graph_of(lambda m, x: m.b(F.relu(m.bn(F.max_pool2d(m.a(x), 2)))), a=conv(), b=conv(), bn=nn.BatchNorm2d(4))
    domains = find_domains(graph)
    assert domains["a"].stream
    assert not domains["bn"].stream


def test_tables_and_second_factors_read_few_bits():
    def call(m, x):
        y = m.a(x) + m.b(x)
        return m.c(y * torch.sigmoid(torch.tanh(y)))  # y * sigmoid(y) would be one table

    domains = find_domains(graph_of(call, a=conv(), b=conv(), c=conv()))
    assert (domains["add"].stream, domains["add"].narrow) == (True, True)
    assert (domains["sigmoid"].stream, domains["sigmoid"].narrow) == (False, True)
    assert not domains["sigmoid"].signed
    assert (domains["mul"].stream, domains["mul"].narrow) == (False, False)


def test_moved_codes_keep_their_quantizer_and_interpolated_ones_get_their_own():
    def call(m, x):
        return m.b(F.interpolate(F.relu(m.a(x)), scale_factor=2)) + m.b2(F.interpolate(x, (16, 16), mode="bilinear"))

    domains = find_domains(graph_of(call, a=conv(), b=conv(), b2=conv()))
    assert domains["interpolate"].members == ("a", "interpolate")
    assert domains["interpolate_2"].members == ("interpolate_2",)
    assert not domains["interpolate_2"].stream


def test_what_the_output_is_interpolated_from_has_16_bits():
    graph = graph_of(lambda m, x: F.interpolate(m.a(x), (16, 16), mode="bilinear"), a=conv())
    domains = find_domains(graph)
    assert domains["a"].stream
    assert domains[graph.output].stream
    assert domains["input"].readers == ("a",)


LAST = {
    "linear": (lambda m, x: m.fc(x.flatten(1)), "fc", True),
    "flattened convolution": (lambda m, x: F.conv2d(x, m.a.weight).flatten(1), "a", True),
    "clamped": (lambda m, x: F.relu(m.a(x)), "a", False),
    "pooled": (lambda m, x: m.a(x).mean((2, 3)), "a", False),
    "max-pooled": (lambda m, x: F.max_pool2d(m.a(x), 2), "a", False),
    "sum": (lambda m, x: m.a(x) + m.b(x), "a", False),
}


@pytest.mark.parametrize("case", LAST)
def test_only_a_last_unit_ends_in_an_accumulator(case):
    call, last, accumulator = LAST[case]
    graph = graph_of(call, a=conv(), b=conv(), fc=nn.Linear(256, 3))
    domain = find_domains(graph)[graph.output]
    assert domain.accumulator == accumulator
    assert domain.stream != accumulator
    assert last in pinned_units(graph)


def test_pinned_units_are_the_first_and_all_that_come_last():
    def call(m, x):
        y = F.relu(m.b(F.relu(m.a(F.max_pool2d(x, 2)))))
        return (m.c(y) + m.d(y)).mean((2, 3))

    graph = graph_of(call, a=conv(), b=conv(), c=conv(), d=conv())
    assert pinned_units(graph) == {"a", "c", "d"}


def test_signs_follow_clamps_sums_pools_and_joins():
    relu = Clamp(0.0, None)

    def node(name, op, *inputs):
        return Node(name, op, inputs, (1, 2, 2))

    def unit(clamp):
        return Conv2d("w", None, (1, 1), (0, 0, 0, 0), (1, 1), 1, clamp=clamp)

    nodes = [
        node("input", Input()),
        node("free", unit(None), "input"),
        node("positive", unit(relu), "free"),
        node("six", unit(Clamp(0.0, 6.0)), "free"),
        node("upper", unit(Clamp(None, 6.0)), "free"),
        node("sum", Add(), "positive", "six"),
        node("mixed", Add(), "positive", "free"),
        node("mixed_relu", Add(relu), "positive", "free"),
        node("flat", Flatten(), "sum"),
        node("flat_mixed", Flatten(), "mixed"),
        node("gate", Unary(Curve.SIGMOID), "free"),
        node("curved", Unary(Curve.HARD_SWISH), "free"),
        node("curved_positive", Unary(Curve.HARD_SWISH), "positive"),
        node("resized", Resize((0.5,), (1.0,)), "positive"),
        node("gated", Mul(), "positive", "gate"),
        node("gated_free", Mul(), "free", "gate"),
    ]
    graph = FloatGraph({n.name: n for n in nodes}, {"logits": "flat"}, {})
    assert non_negative(graph) == {
        "positive", "six", "sum", "mixed_relu", "flat", "gate", "curved_positive", "resized", "gated"}  # fmt: skip
