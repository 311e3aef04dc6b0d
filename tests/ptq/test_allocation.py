"""Bits and bins by channel: the formula, the mean, and integers whose channels have fewer levels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import NETWORKS, SIZE, build, images
from schemes import SCHEMES

from hawq.errors import UsageError
from hawq.graph.structure import pinned_units
from hawq.graph.trace import trace
from hawq.integer import ReferenceExecutor
from hawq.ptq import Settings, Workbench, parse_methods
from hawq.ptq.allocation import allocate_bins, allocate_bits, entropy
from hawq.ptq.checkpoint import save_quantized
from hawq.ptq.weights import quantized_weights
from hawq.qat.checkpoint import load_quantized


def ran(methods, name="Residual", scheme="uniform4", settings=None):
    graph = trace(build(name), (3, SIZE, SIZE))
    work = Workbench.of(graph, SCHEMES[scheme](graph), images=lambda: [images(8)], settings=settings or Settings())
    work.run(parse_methods(methods))
    return work, graph


def test_bins_follow_the_two_thirds_power():
    assert allocate_bins(torch.tensor([1.0, 8.0, 27.0]), 4).tolist() == [round(48 * s / 14) for s in (1, 4, 9)]


def test_a_spread_eight_times_as_wide_gets_two_bits_more():
    spread = torch.tensor([1.0, 8.0, 64.0] * 10)
    bits = allocate_bits(spread, 5.0).view(10, 3)
    assert bits.diff(dim=1).unique().tolist() == [2]
    assert float(bits.double().mean()) == 5


@given(st.integers(16, 400), st.sampled_from([2.0, 3.0, 4.0, 5.3, 6.5]), st.integers(0, 99))
def test_the_mean_is_met_to_a_step_of_one_channel(channels, mean, seed):
    spread = torch.from_numpy(np.random.default_rng(seed).lognormal(sigma=0.7, size=channels))
    bits = allocate_bits(spread, mean)
    assert set(bits.tolist()) <= {0, 2, 3, 4, 5, 6, 7, 8}
    assert abs(int(bits.sum()) - channels * mean) <= 1  # the smallest step from 0 is to 2
    order = spread.argsort()
    assert bits[order].equal(bits.sort().values)


def test_equal_channels_get_equal_bits_and_dead_ones_none():
    assert allocate_bits(torch.full((7,), 0.3), 4).tolist() == [4] * 7
    assert allocate_bits(torch.tensor([0.3, 0.3, 0.3, 0.0]), 3).tolist()[3] == 0
    assert allocate_bits(torch.zeros(3), 4).tolist() == [0] * 3
    assert allocate_bins(torch.zeros(3), 4).tolist() == [1] * 3


def test_entropy_of_known_codes():
    assert entropy(torch.tensor([[0.0, 1, 2, 3], [5, 5, 5, 5]])) == 1.0
    assert entropy(torch.tensor([[0.0, 0, 0, 1]])) == pytest.approx(2 - 0.75 * np.log2(3))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", ["allocate-bits", "allocate-bins"])
def test_channels_use_their_levels_and_become_integers(name, method, tmp_path):
    work, graph = ran(f"minmax,{method},weight-variance,weight-mean", name)
    pinned, model = pinned_units(graph), work.model
    shared = [w for w in quantized_weights(work) if w.unit not in pinned]
    assert shared
    for weights in shared:
        codes = model.lower().tensors[f"{weights.unit}.weight"].flatten(1)
        assert bool((codes.abs().amax(1) <= weights.limits).all())
        levels = 2 * weights.limits + 1
        if method == "allocate-bits":
            bits = (levels + 1).log2()
            assert bits.equal(torch.round(bits))
    if method == "allocate-bins" or name in ("Residual", "Inverted"):  # elsewhere channels are much alike
        assert any(len(weights.limits.unique()) > 1 for weights in shared)
    logits = model(images(4))
    assert logits.equal(ReferenceExecutor(model.lower()).logits(images(4)))
    save_quantized(tmp_path / "best.pt", model, [])
    again = load_quantized(tmp_path / "best.pt", graph)
    assert again(images(4)).equal(logits)
    assert again.unit(shared[0].unit).quantizer.limits.equal(shared[0].limits)


def test_the_mean_may_be_asked_for():
    work, _ = ran("minmax,allocate-bits", settings=Settings(mean_bits=5.3))
    (note,) = work.notes
    assert abs(float(note.split(": ")[1].split(" ")[0]) - 5.3) < 0.3  # layers of 12 channels
    work, _ = ran("minmax,allocate-bins", settings=Settings(mean_bits=5.3))
    assert 2 < float(work.notes[0].split("take ")[1].split(" ")[0]) < 5.3


@pytest.mark.parametrize("methods", ["kmeans,allocate-bits", "minmax,weight-mean,allocate-bins"])
def test_weights_without_a_range_rule_are_refused(methods):
    with pytest.raises(UsageError, match="of a range rule"):
        ran(methods)


@pytest.mark.parametrize("method", ["adaround", "brecq"])
def test_learned_roundings_keep_to_the_levels_of_channels(method):
    settings = Settings(iterations=3)
    before, graph = ran("minmax,allocate-bits", settings=settings)
    after, _ = ran(f"minmax,allocate-bits,{method}", settings=settings)
    assert after.model(images(4)).equal(ReferenceExecutor(after.model.lower()).logits(images(4)))
    pairs = zip(quantized_weights(before), quantized_weights(after), strict=True)
    for shared, learned in pairs:
        if shared.unit not in pinned_units(graph):
            assert learned.limits.equal(shared.codes.abs().amax(1)), shared.unit
            assert bool((learned.codes.abs() <= shared.limits[:, None]).all())
