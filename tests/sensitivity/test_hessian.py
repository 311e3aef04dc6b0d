"""Sensitivities of a whole graph: folded weights in both factors, every batch counted by its images."""

import pytest
import torch
import torch.nn.functional as F
from small_graph import batches, build, reference

from hawq.graph.interpret import run_float
from hawq.qat.fold import folded_weight
from hawq.sensitivity.folded import folded_graph, weight_name
from hawq.sensitivity.hessian import hessian
from hawq.sensitivity.hutchinson import Probing
from hawq.sensitivity.perturbation import WIDTHS, squared_error


def silent(probes, error):
    pass


def _double(graph):
    return type(graph)(graph.nodes, graph.output, {name: t.double() for name, t in graph.tensors.items()})


def test_the_folded_network_computes_what_the_float_network_computes():
    graph = _double(build())
    (image, _), *_ = batches(3)
    folded = run_float(folded_graph(graph), image.double())["head"]
    assert torch.allclose(folded, reference(graph.tensors, image.double()), rtol=0, atol=1e-12)


def test_the_squared_error_is_a_sum_over_channels_of_their_own_grids():
    weight = torch.tensor([[7.0, 3.4, -7.0], [70.0, 34.0, -70.0]])  # scales 1 and 10 at 4 bits; codes 7, 3, -7
    assert squared_error(weight, 4) == pytest.approx(0.4**2 + 4.0**2, rel=1e-6)
    assert squared_error(torch.zeros(2, 3), 4) == 0
    assert squared_error(weight.view(2, 3, 1, 1), 4) == squared_error(weight, 4)


def test_more_bits_leave_less_error():
    weight = torch.randn(16, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    errors = [squared_error(weight, bits) for bits in WIDTHS]
    assert errors == sorted(errors, reverse=True)
    assert errors[WIDTHS.index(4)] / errors[WIDTHS.index(8)] == pytest.approx((127 / 7) ** 2, rel=0.1)


def _exact_traces(graph, data):
    """Return the trace of each unit's Hessian over its folded weights, from the Hessian in full."""
    folded = folded_graph(graph)
    weights = {unit: folded.tensors[weight_name(unit)] for unit in graph.units}
    images = sum(len(y) for _, y in data)

    def loss(*leaves):
        named = {weight_name(unit): leaf for unit, leaf in zip(weights, leaves, strict=True)}
        moved = type(graph)(folded.nodes, folded.output, {**folded.tensors, **named})
        return sum(F.cross_entropy(run_float(moved, x)["head"], y) * len(y) for x, y in data) / images

    full = torch.autograd.functional.hessian(loss, tuple(weights.values()))
    return {u: float(full[i][i].reshape(w.numel(), -1).trace()) for i, (u, w) in enumerate(weights.items())}


def test_omega_is_average_trace_times_squared_error():
    graph, data = _double(build()), [(x.double(), y) for x, y in batches(5, 3)]
    found = hessian(graph, data, Probing(relative_error=1e-9, max_probes=400), silent)
    assert list(found.units) == ["a", "b", "head"]
    assert found.probes == 400
    for unit, trace in _exact_traces(graph, data).items():
        sensitivity, weight = found.units[unit], folded_weight(graph, unit)[0]
        assert sensitivity.weights == weight.numel()
        assert abs(sensitivity.trace - trace) < 4 * sensitivity.trace_error
        for bits in WIDTHS:
            expected = max(sensitivity.trace, 0) / weight.numel() * squared_error(weight, bits)
            assert sensitivity.omega[bits] == pytest.approx(expected, rel=1e-12)


def test_a_negative_trace_counts_as_zero_and_is_kept():
    data = batches(4)
    found = [hessian(build(), data, Probing(max_probes=1, seed=seed), silent).units for seed in range(20)]
    negative = [unit for units in found for unit in units.values() if unit.trace < 0]
    assert negative
    assert all(omega == 0 for unit in negative for omega in unit.omega.values())


def test_the_network_is_left_alone():
    graph, data = build(), batches(4)
    before = {name: tensor.clone() for name, tensor in graph.tensors.items()}
    hessian(graph, data, Probing(max_probes=4), silent)
    assert all(torch.equal(before[name], tensor) for name, tensor in graph.tensors.items())
    assert not any(tensor.requires_grad for tensor in graph.tensors.values())


def test_a_single_probe_states_no_error():
    found = hessian(build(), batches(4), Probing(max_probes=1), silent)
    assert all(unit.trace_error is None for unit in found.units.values())
