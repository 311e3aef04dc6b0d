"""Smooth activations, as modules, as functions or written out, become one op, and products of activations another."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from tracing import Run, assert_same, kinds

from hawq.graph.curves import Curve
from hawq.graph.ir import Clamp, Mul, Unary

SHAPE = (4, 12, 10)
RELU = Clamp(0.0, None)


def conv(cin=4, cout=6):
    return nn.Conv2d(cin, cout, 3, padding=1)


CURVES = {
    "sigmoid": (lambda x: torch.sigmoid(x), Curve.SIGMOID),
    "sigmoid method": (lambda x: x.sigmoid_(), Curve.SIGMOID),
    "sigmoid module": (lambda x: nn.Sigmoid()(x), Curve.SIGMOID),
    "tanh": (lambda x: F.tanh(x), Curve.TANH),
    "hard sigmoid": (lambda x: nn.Hardsigmoid()(x), Curve.HARD_SIGMOID),
    "hard swish": (lambda x: nn.Hardswish(inplace=True)(x), Curve.HARD_SWISH),
    "silu": (lambda x: nn.SiLU(inplace=True)(x), Curve.SILU),
    "gelu": (lambda x: F.gelu(x), Curve.GELU),
    "gelu by tanh": (lambda x: nn.GELU("tanh")(x), Curve.GELU_TANH),
    "mish": (lambda x: nn.Mish()(x), Curve.MISH),
}

WRITTEN_OUT = {
    "swish": (lambda x: x * torch.sigmoid(x), Curve.SILU),
    "swish, gate first": (lambda x: x.sigmoid() * x, Curve.SILU),
    "swish in place": (lambda x: x.mul_(x.sigmoid()), Curve.SILU),
    "hard sigmoid": (lambda x: F.relu6(x + 3.0, inplace=True) / 6.0, Curve.HARD_SIGMOID),
    "hard sigmoid by a product": (lambda x: (3 + x).clamp(0, 6).mul(1 / 6), Curve.HARD_SIGMOID),
    "hard swish": (lambda x: x * F.relu6(x + 3.0) / 6.0, Curve.HARD_SWISH),
    "hard swish, gate first": (lambda x: F.hardtanh(x.add(3), 0.0, 6.0) * x / 6, Curve.HARD_SWISH),
    "hard swish, divided gate": (lambda x: x * (F.relu6(x + 3) / 6), Curve.HARD_SWISH),
    "hard swish of a module": (lambda x: x * nn.Hardsigmoid()(x), Curve.HARD_SWISH),
}


@pytest.mark.parametrize(("act", "curve"), [*CURVES.values(), *WRITTEN_OUT.values()], ids=[*CURVES, *WRITTEN_OUT])
def test_smooth_activations(act, curve):
    graph = assert_same(Run(lambda m, x: act(m.conv(x)), conv=conv()), SHAPE)
    assert kinds(graph) == ["Conv2d", "Unary"]
    assert graph.nodes[graph.output].op == Unary(curve)


def test_a_gate_of_another_tensor_stays_a_product():
    graph = assert_same(Run(lambda m, x: m.a(x) * torch.sigmoid(m.b(x)), a=conv(), b=conv()), SHAPE)
    assert kinds(graph) == ["Conv2d", "Conv2d", "Unary", "Mul"]


def test_every_curve_is_tried():
    assert {curve for _, curve in CURVES.values()} == set(Curve)


PRODUCTS = {
    "equal shapes": (lambda m, x: m.conv(x) * x, ("conv", "input")),
    "in place": (lambda m, x: m.conv(x).mul_(x), ("conv", "input")),
    "a square": (lambda m, x: torch.mul(x, x), ("input", "input")),
    "the map first": (lambda m, x: x * x.mean((2, 3), keepdim=True), ("input", "mean")),
    "the map second": (lambda m, x: F.adaptive_avg_pool2d(x, 1) * x, ("input", "adaptive_avg_pool2d")),
    "features": (lambda m, x: m.fc(x.mean((2, 3))).view(-1, 4, 1, 1) * x, ("input", "fc")),
    "flat features": (lambda m, x: m.fc(x.mean((2, 3))) * x.mean((2, 3)), ("fc", "flatten")),
}


@pytest.mark.parametrize("form", PRODUCTS)
def test_products(form):
    call, inputs = PRODUCTS[form]
    graph = assert_same(Run(lambda m, x: F.relu(call(m, x)), conv=conv(cout=4), fc=nn.Linear(4, 4)), SHAPE, batch=3)
    assert graph.nodes[graph.output].op == Mul(RELU)
    assert graph.nodes[graph.output].inputs == inputs
