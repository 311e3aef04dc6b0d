"""The trace estimator against Hessians that are known or computed in full."""

import math

import pytest
import torch
import torch.nn.functional as F

from hawq.errors import HawqError
from hawq.sensitivity.hutchinson import Estimate, Probing, WeightedLoss, block_traces


def _leaf(*shape, seed=0, spread=1.0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values * spread).requires_grad_()


def _diagonal():
    parameters = {"a": _leaf(3, 2, seed=1), "b": _leaf(5, seed=2), "c": _leaf(2, seed=3)}
    curvature = {name: torch.arange(1.0, leaf.numel() + 1).view_as(leaf) for name, leaf in parameters.items()}
    curvature["c"] = -curvature["c"]

    def loss():
        return sum((curvature[name] * leaf**2).sum() / 2 for name, leaf in parameters.items())

    return parameters, loss, {"a": 21.0, "b": 15.0, "c": -3.0}


def test_a_diagonal_hessian_is_exact_with_a_single_probe():
    parameters, loss, traces = _diagonal()
    found = block_traces(parameters, [WeightedLoss(loss, 1.0)], Probing(max_probes=1))
    assert {name: estimate.mean for name, estimate in found.items()} == traces
    assert all(estimate.error == math.inf and estimate.probes == 1 for estimate in found.values())


def test_without_noise_the_first_round_is_enough():
    parameters, loss, traces = _diagonal()
    seen = []
    found = block_traces(parameters, [WeightedLoss(loss, 1.0)], Probing(), lambda *state: seen.append(state))
    assert found == {name: Estimate(trace, 0.0, 4) for name, trace in traces.items()}
    assert seen == [(4, 0.0)]


def _tiny():
    """Return two blocks of a smooth network, two unequal batches, and the exact traces of the mean loss."""
    parameters = {"first": _leaf(4, 3, seed=1, spread=0.5), "second": _leaf(3, 4, seed=2)}

    def predict(first, second, x):
        return torch.tanh(x @ first.T) @ second.T

    images = [_leaf(6, 3, seed=3).detach(), _leaf(2, 3, seed=4).detach()]
    data = [(x, predict(*parameters.values(), x).argmax(1)) for x in images]  # labels as after training

    def compute(first, second, x, y):
        return F.cross_entropy(predict(first, second, x), y)

    def full(first, second):
        return sum(compute(first, second, x, y) * len(y) for x, y in data) / 8

    hessian = torch.autograd.functional.hessian(full, tuple(parameters.values()))
    exact = {name: float(hessian[i][i].reshape(12, 12).trace()) for i, name in enumerate(parameters)}
    losses = [WeightedLoss(lambda x=x, y=y: compute(*parameters.values(), x, y), len(y) / 8) for x, y in data]
    return parameters, losses, exact


def test_a_network_agrees_with_its_full_hessian_within_the_error_it_states():
    parameters, losses, exact = _tiny()
    found = block_traces(parameters, losses, Probing(relative_error=1e-9, max_probes=800))
    for name, trace in exact.items():
        assert found[name].probes == 800
        assert found[name].error < 0.1 * abs(trace)
        assert abs(found[name].mean - trace) < 4 * found[name].error


def test_stated_errors_are_the_spread_of_independent_estimates():
    parameters, losses, exact = _tiny()
    runs = [block_traces(parameters, losses, Probing(1e-9, 32, seed)) for seed in range(40)]
    for name, trace in exact.items():
        z = torch.tensor([(run[name].mean - trace) / run[name].error for run in runs])
        assert abs(float(z.mean())) < 0.6
        assert 0.7 < float(z.std()) < 1.4


def test_it_stops_at_the_relative_error_asked_for():
    parameters, losses, _ = _tiny()
    probes = []
    for target in (0.4, 0.1):
        seen = []
        found = block_traces(parameters, losses, Probing(target, 1000), lambda *state, seen=seen: seen.append(state))
        typical = sum(abs(estimate.mean) for estimate in found.values()) / len(found)
        worst = max(estimate.error / max(abs(estimate.mean), typical) for estimate in found.values())
        assert worst <= target
        assert seen[-1] == (found["first"].probes, pytest.approx(worst))
        assert all(error > target or count < 8 for count, error in seen[:-1])
        probes.append(found["first"].probes)
    assert 8 <= probes[0] < probes[1] < 1000


def test_a_block_that_hardly_matters_needs_no_precision():
    """Its error is held against the mean trace of all blocks, so that noise around zero ends somewhere."""
    steep, flat, mixing = _leaf(4), _leaf(6), _leaf(6, 6, seed=9).detach().triu(1)

    def loss():
        return steep.square().sum() + 1e-2 * flat @ mixing @ flat  # the second Hessian has trace 0

    found = block_traces({"steep": steep, "flat": flat}, [WeightedLoss(loss, 1.0)], Probing(0.2, 1000))
    assert found["flat"].probes < 1000
    assert found["flat"].error > 0.2 * abs(found["flat"].mean)


def test_the_seed_decides_every_bit():
    parameters, losses, _ = _tiny()
    first, again, other = (block_traces(parameters, losses, Probing(1e-9, 8, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_blocks_without_curvature_have_trace_zero():
    parameters = {"linear": _leaf(4), "unused": _leaf(3), "curved": _leaf(2)}

    def loss():
        return parameters["linear"].sum() + (parameters["curved"] ** 2).sum()

    found = block_traces(parameters, [WeightedLoss(loss, 1.0)], Probing())
    assert [estimate.mean for estimate in found.values()] == [0, 0, 4]
    flat = block_traces(parameters, [WeightedLoss(lambda: parameters["linear"].sum(), 1.0)], Probing())
    assert all(estimate == Estimate(0.0, 0.0, 4) for estimate in flat.values())


def test_relu_networks_may_be_written_in_place():
    parameters = {"w": _leaf(4, 3)}
    x = _leaf(5, 3, seed=1).detach()

    def loss(inplace):
        return F.relu(x @ parameters["w"].T, inplace=inplace).square().sum()

    plain, inplace = (
        block_traces(parameters, [WeightedLoss(lambda i=i: loss(i), 1.0)], Probing(1e-9, 8)) for i in (False, True)
    )
    assert plain == inplace
    assert plain["w"].mean > 0


@pytest.mark.filterwarnings("ignore:Using backward")
def test_the_whole_trace_agrees_with_pyhessian():
    pyhessian = pytest.importorskip("pyhessian")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5, bias=False), torch.nn.Tanh(), torch.nn.Linear(5, 3, bias=False))
    x, y = torch.randn(16, 3), torch.randint(0, 3, (16,))
    peer = pyhessian.hessian(model, F.cross_entropy, data=(x, y), cuda=False).trace(maxIter=400, tol=0)
    parameters = dict(model.named_parameters())
    ours = block_traces(parameters, [WeightedLoss(lambda: F.cross_entropy(model(x), y), 1.0)], Probing(1e-9, 400))
    theirs = torch.tensor(peer)
    error = math.hypot(float(theirs.std()) / 20, *(estimate.error for estimate in ours.values()))
    assert abs(sum(estimate.mean for estimate in ours.values()) - float(theirs.mean())) < 4 * error


def test_no_data_and_infinite_losses_are_refused():
    parameters = {"w": _leaf(2)}
    with pytest.raises(HawqError, match="at least one batch of data"):
        block_traces(parameters, [], Probing())
    with pytest.raises(HawqError, match="no finite Hessian"):
        block_traces(parameters, [WeightedLoss(lambda: (parameters["w"] * math.inf).square().sum(), 1.0)], Probing())


@pytest.mark.parametrize("options", [{"relative_error": 0}, {"max_probes": 0}, {"relative_error": math.nan}])
def test_options_that_make_no_estimate_are_refused(options):
    with pytest.raises(HawqError, match="make no estimate"):
        Probing(**options)
