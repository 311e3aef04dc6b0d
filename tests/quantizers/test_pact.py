"""PACT: the clip's gradient, the codes, the start, and the network that is deployed."""

import pytest
import torch
from deployed import check_deployed, fine_tuned, simulation_error

from hawq.quantizers import ActivationGrid, QuantOptions
from hawq.quantizers.mse import MseActivation
from hawq.quantizers.pact import PactActivation
from hawq.quantizers.registry import WEIGHT_QUANTIZERS
from hawq.train.groups import Group, parameter_groups


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pact(bits, grid, clip):
    quantizer = PactActivation(bits, grid, QuantOptions())
    quantizer.clip.data.fill_(clip)
    return quantizer


def test_the_gradient_of_the_clip_is_that_of_the_paper():
    quantizer = pact(2, ActivationGrid.UNSIGNED, 1.5)
    value = torch.tensor([-1.0, 0.0, 0.3, 1.4, 1.5, 1.6, 9.0], requires_grad=True)
    out = quantizer(value)
    assert out.tolist() == [0.0, 0.0, 0.5, 1.5, 1.5, 1.5, 1.5]
    out.backward(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]))
    assert value.grad.tolist() == [0.0, 2.0, 4.0, 8.0, 0.0, 0.0, 0.0]  # x < 0: 0; 0 <= x < c: 1; c <= x: 0
    assert float(quantizer.clip.grad) == 16 + 32 + 64


def test_a_signed_range_ends_with_its_codes():
    quantizer = pact(3, ActivationGrid.AFFINE, 3.0)
    value = torch.tensor([-9.0, -4.5, -4.0, -3.4, 0.4, 2.9, 3.0, 9.0], requires_grad=True)
    out = quantizer(value)
    assert out.tolist() == [-4.0, -4.0, -4.0, -3.0, 0.0, 3.0, 3.0, 3.0]
    out.backward(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]))
    assert value.grad.tolist() == [0.0, 0.0, 4.0, 8.0, 16.0, 32.0, 0.0, 0.0]
    assert float(quantizer.clip.grad) == pytest.approx(64 + 128 - (1 + 2) * 4 / 3, rel=1e-6)  # the lowest is -4/3 c


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("grid", [ActivationGrid.UNSIGNED, ActivationGrid.SYMMETRIC])
def test_levels(bits, grid):
    lowest = -(2 ** (bits - 1)) if grid.signed else 0
    codes = torch.arange(lowest, lowest + 2**bits)
    found = pact(bits, grid, 2.0)(torch.linspace(-9, 9, 40_000)).unique()
    assert found.equal(codes * (torch.tensor(2.0) / codes[-1]))


def test_it_starts_at_the_range_of_least_error_and_does_not_observe():
    batches = [values(4, 1000, seed=s).relu() * (s + 1) for s in range(2)]
    quantizer = PactActivation(4, ActivationGrid.UNSIGNED, QuantOptions())
    quantizer.calibrating = True
    wanted = []
    for batch in batches:
        quantizer(batch)
        reference = MseActivation(4, ActivationGrid.UNSIGNED, QuantOptions())
        reference.calibrate(batch)
        wanted.append(15 * float(reference.step()))
    quantizer.calibrating = False
    assert quantizer.clip.item() == pytest.approx(sum(wanted) / 2, rel=1e-6)
    before = quantizer.clip.clone()
    quantizer.train()(100 * batches[0])
    assert quantizer.clip.equal(before)


def test_a_clip_below_zero_counts_by_its_magnitude():
    value = values(1000)
    assert pact(4, ActivationGrid.UNSIGNED, -1.2)(value).equal(pact(4, ActivationGrid.UNSIGNED, 1.2)(value))


def test_the_paper_has_no_weights():
    assert "pact" not in WEIGHT_QUANTIZERS


@pytest.mark.parametrize("bits", [4, 2])
def test_what_trained_is_deployed(bits, tmp_path):
    model = fine_tuned("Inverted", bits, act_quantizer="pact")
    clips = [p for n, p in model.named_parameters() if n.endswith(".clip")]
    assert len(clips) == 4
    assert all(bool(p.grad != 0) for p in clips)
    check_deployed(model, tmp_path)
    assert simulation_error(model) < 0.02


def test_its_pattern_gives_the_clips_the_decay_of_the_paper():
    model = fine_tuned("Inverted", 4, 0, act_quantizer="pact")
    groups = parameter_groups(model, 1e-4, [Group.read("*.clip:wd=0.0002")])
    (own,) = [group for group in groups if group["weight_decay"] == 2e-4]
    assert len(own["params"]) == 4
