"""Random probes against Hessians that are known or computed in full, and against PyHessian."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_graph import batches, build
from torch import nn

from hawq.graph.interpret import run_float
from hawq.qat.rewrites import folded_graph, weight_name
from hawq.sensitivity.curvature import curvature, output_factor
from hawq.sensitivity.hutchinson import block_traces


def _leaf(*shape, seed=0, spread=1.0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values * spread).requires_grad_()


def test_a_diagonal_hessian_is_exact_with_a_single_probe():
    parameters = {"a": _leaf(3, 2, seed=1), "b": _leaf(5, seed=2), "c": _leaf(2, seed=3)}
    curved = {name: torch.arange(1.0, leaf.numel() + 1).view_as(leaf) for name, leaf in parameters.items()}
    curved["c"] = -curved["c"]

    def loss():
        return sum((curved[name] * leaf**2).sum() / 2 for name, leaf in parameters.items())

    assert block_traces(parameters, loss, 1, torch.Generator().manual_seed(0)).tolist() == [[21.0, 15.0, -3.0]]


def test_a_smooth_network_agrees_with_its_full_hessian_within_the_spread():
    parameters = {"first": _leaf(4, 3, seed=1, spread=0.5), "second": _leaf(3, 4, seed=2)}
    x = _leaf(6, 3, seed=3).detach()
    y = (torch.tanh(x @ parameters["first"].T) @ parameters["second"].T).argmax(1)

    def loss(first, second):
        return F.cross_entropy(torch.tanh(x @ first.T) @ second.T, y)

    full = torch.autograd.functional.hessian(loss, tuple(parameters.values()))
    found = block_traces(parameters, lambda: loss(*parameters.values()), 800, torch.Generator().manual_seed(0))
    for index, (samples, leaf) in enumerate(zip(found.T, parameters.values(), strict=True)):
        exact = float(full[index][index].reshape(leaf.numel(), -1).trace())
        error = float(samples.std()) / 800**0.5
        assert error < 0.1 * abs(exact)
        assert abs(float(samples.mean()) - exact) < 4 * error


def test_a_linear_loss_has_no_curvature():
    leaf = _leaf(4)
    assert block_traces({"a": leaf}, lambda: leaf.sum(), 2, torch.Generator()).tolist() == [[0.0], [0.0]]


class _Network(nn.Module):
    """The folded network as PyHessian wants it, the weights of its units as parameters."""

    def __init__(self, graph):
        super().__init__()
        self.graph = graph
        self.weights = nn.ParameterList([graph.tensors[weight_name(unit)].clone() for unit in graph.units])

    def forward(self, images):
        moved = {weight_name(unit): weight for unit, weight in zip(self.graph.units, self.weights, strict=True)}
        graph = replace(self.graph, tensors={**self.graph.tensors, **moved})
        return run_float(graph, images)[graph.output]


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
def test_the_sum_over_units_is_pyhessians_global_trace():
    """The trace of the whole is the sum of the blocks' traces, whatever the blocks have in common."""
    from pyhessian import hessian

    graph, (data, *_) = folded_graph(build()), batches(8)
    torch.manual_seed(0)
    # its stopping rule divides by a trace that may be negative, so it is switched off
    samples = hessian(_Network(graph), F.cross_entropy, data, cuda=False).trace(maxIter=400, tol=-torch.inf)
    theirs, generator = torch.tensor(samples), torch.Generator().manual_seed(0)

    def ours_once():
        found = curvature(graph, data[0], lambda logits: output_factor(logits, generator))
        return sum(float(norms.mean()) for norms in found.weights.values())

    ours = torch.tensor([ours_once() for _ in range(400)])
    error = ((theirs.var() + ours.var()) / 400) ** 0.5
    assert float(error) < 0.2 * float(ours.mean())
    assert abs(float(theirs.mean() - ours.mean())) < 4 * float(error)
    assert float(ours.var()) < float(theirs.var())  # the same trace with less noise
