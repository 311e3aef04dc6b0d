"""Traces against Hessians computed in full, and the norms of gradients against autograd, image by image."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graph import CLASSES, batches, build, reference

from hawq.graph import ir
from hawq.graph.interpret import resume_float, run_float
from hawq.qat.rewrites import folded_graph, weight_name
from hawq.sensitivity.curvature import centred_signs, curvature, label_residual, output_factor


def doubled(graph):
    return replace(graph, tensors={name: t.double() for name, t in graph.tensors.items()})


def test_the_folded_network_computes_what_the_float_network_computes():
    graph = doubled(build())
    (image, _), *_ = batches(3)
    folded = run_float(folded_graph(graph), image.double())["head"]
    assert torch.allclose(folded, reference(graph.tensors, image.double()), rtol=0, atol=1e-12)


class Signs:
    """Stand in for the random signs, so that all of them can be tried."""

    def __init__(self, monkeypatch, signs):
        self._bits = (torch.tensor(signs) + 1) // 2
        monkeypatch.setattr(torch, "randint", lambda low, high, shape, generator: self._bits.expand(shape))


def _mean_over_all_signs(monkeypatch, compute):
    results = []
    for signs in itertools.product((-1, 1), repeat=CLASSES):
        with monkeypatch.context() as patched:
            Signs(patched, signs)
            results.append(compute())
    return [sum(parts) / len(results) for parts in zip(*results, strict=True)]


def _softmax_covariance(logits):
    p = logits.softmax(1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def _centring(logits):
    return (torch.eye(CLASSES, dtype=logits.dtype) - 1 / CLASSES).expand(len(logits), -1, -1)


@pytest.mark.parametrize(("draw", "expected"), [(output_factor, _softmax_covariance), (centred_signs, _centring)])
def test_random_vectors_have_the_covariance_they_stand_for(monkeypatch, draw, expected):
    logits = torch.randn(2, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def outer():
        s = draw(logits, None)
        return [s[:, :, None] * s[:, None, :]]

    (found,) = _mean_over_all_signs(monkeypatch, outer)
    assert torch.allclose(found, expected(logits), rtol=0, atol=1e-15)


def _trace(function, tensor):
    return float(torch.autograd.functional.hessian(function, tensor).reshape(tensor.numel(), -1).trace())


def test_the_mean_over_all_signs_is_the_trace_of_the_full_hessian(monkeypatch):
    """Not within an error: the sum over all 8 sign vectors is the exact expectation."""
    graph = folded_graph(doubled(build()))
    (images, labels), *_ = batches(2)
    images = images.double()
    known = run_float(graph, images)

    def compute():
        found = curvature(graph, images, lambda logits: output_factor(logits, None), inputs=True)
        return [norms.sum() for norms in (*found.weights.values(), *found.inputs.values())]

    found = _mean_over_all_signs(monkeypatch, compute)
    exact = []
    for unit in graph.units:

        def loss(weight, unit=unit):
            moved = replace(graph, tensors={**graph.tensors, weight_name(unit): weight})
            return F.cross_entropy(run_float(moved, images)["head"], labels, reduction="sum")

        exact.append(_trace(loss, graph.tensors[weight_name(unit)]))
    for unit, node in graph.units.items():

        def loss(value, unit=unit, node=node):
            # the unit alone reads the changed input; others still read the old one
            single = type(graph)({n: graph.nodes[n] for n in (*node.inputs, unit)}, {"logits": unit}, graph.tensors)
            output = resume_float(single, {**known, unit: known[unit]}, {node.inputs[0]: value})
            return F.cross_entropy(resume_float(graph, known, {unit: output}), labels, reduction="sum")

        exact.append(_trace(loss, known[node.inputs[0]]))
    assert [float(value) for value in found] == pytest.approx(exact, rel=1e-9)


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 2, 4]))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pads = st.integers(0, 2)
    padding = tuple(draw(pads) for _ in range(4))
    stride, dilation = ((draw(st.integers(1, 2)), draw(st.integers(1, 2))) for _ in range(2))
    channels = draw(st.sampled_from([(4, 4), (4, 8), (8, 4)]))
    return groups, kernel, stride, padding, dilation, channels, draw(st.integers(5, 14))


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_norms_of_weight_gradients_equal_autograd(case):
    groups, kernel, stride, padding, dilation, (inputs, outputs), side = case
    top, bottom, left, right = padding
    height = side + top + bottom - dilation[0] * (kernel[0] - 1) - 1
    width = side + left + right - dilation[1] * (kernel[1] - 1) - 1
    shape = (outputs, height // stride[0] + 1, width // stride[1] + 1)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs // groups, *kernel, generator=generator, dtype=torch.float64)
    images = torch.randn(3, inputs, side, side, generator=generator, dtype=torch.float64)
    op = ir.Conv2d("w", None, stride, padding, dilation, groups)
    flat = shape[0] * shape[1] * shape[2]
    nodes = [
        ir.Node("x", ir.Input(), (), (inputs, side, side)),
        ir.Node("c", op, ("x",), shape),
        ir.Node("f", ir.Flatten(), ("c",), (flat,)),
    ]
    graph = ir.FloatGraph({node.name: node for node in nodes}, {"logits": "f"}, {"w": weight})
    direction = torch.randn(3, flat, generator=generator, dtype=torch.float64)
    found = curvature(graph, images, lambda logits: direction).weights["c"]
    for image, s, norm in zip(images, direction, found, strict=True):
        leaf = weight.clone().requires_grad_()
        moved = replace(graph, tensors={"w": leaf})
        (gradient,) = torch.autograd.grad((run_float(moved, image[None])["f"][0] * s).sum(), leaf)
        assert float(norm) == pytest.approx(float(gradient.square().sum()), rel=1e-9)


def test_the_label_residual_is_the_gradient_of_the_cross_entropy():
    logits = torch.randn(4, CLASSES, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 1, 1])
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), logits)
    assert torch.allclose(label_residual(logits, labels), gradient, rtol=0, atol=1e-15)


def test_the_network_is_left_alone():
    graph = folded_graph(build())
    before = {name: tensor.clone() for name, tensor in graph.tensors.items()}
    curvature(graph, batches(2)[0][0], lambda logits: logits, inputs=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in graph.tensors.items())
    assert not any(tensor.requires_grad for tensor in graph.tensors.values())
