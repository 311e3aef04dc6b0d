"""Least squared error: no candidate beats the share that is found, and training keeps it."""

import pytest
import torch
from deployed import check_deployed, fine_tuned, simulation_error

from hawq.qat.transfer import carry_ranges
from hawq.quantizers import ActivationGrid, QuantOptions
from hawq.quantizers.minmax import MinMaxActivation
from hawq.quantizers.mse import RATIOS, MseActivation, MseWeight


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def calibrated(cls, grid, bits, *batches):
    quantizer = cls(bits, grid, QuantOptions())
    quantizer.calibrating = True
    for batch in batches:
        quantizer(batch)
    quantizer.calibrating = False
    return quantizer


def error(value, grid, bits, below, above):
    """Return the squared error over shares of the range, in float64 and by the definition of the codes."""
    scale, zero_point = grid.place(value.min() * below, value.max() * above, bits)
    codes = (torch.round(value.double() / scale) + zero_point).clamp(*grid.codes(bits))
    return float(((codes - zero_point) * scale - value).pow(2).sum())


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("grid", [ActivationGrid.UNSIGNED, ActivationGrid.SYMMETRIC])
def test_no_other_share_of_the_range_errs_less(grid, bits):
    value = values(20_000).relu() if grid is ActivationGrid.UNSIGNED else values(20_000) + 0.5
    below, above = calibrated(MseActivation, grid, bits, value).shares.tolist()
    assert below == above
    found = error(value, grid, bits, below, above)
    assert found == min(error(value, grid, bits, r, r) for r in RATIOS)
    assert found <= 1.02 * min(error(value, grid, bits, k / 200, k / 200) for k in range(1, 201))  # between the RATIOS


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_with_a_zero_point_each_end_has_a_share(bits):
    grid, value = ActivationGrid.AFFINE, torch.nn.functional.silu(2 * values(20_000))
    below, above = calibrated(MseActivation, grid, bits, value).shares.tolist()
    found = error(value, grid, bits, below, above)
    assert found == min(error(value, grid, bits, r, above) for r in RATIOS)
    assert found <= min(error(value, grid, bits, 1.0, r) for r in RATIOS)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_errs_less_than_the_whole_range_of_a_bell(bits):
    value = values(20_000)
    errors = {
        cls: (calibrated(cls, ActivationGrid.SYMMETRIC, bits, value).eval()(value) - value).pow(2).mean()
        for cls in (MseActivation, MinMaxActivation)
    }
    assert errors[MseActivation] < 0.6 * errors[MinMaxActivation]


def test_a_calibration_takes_the_mean_of_its_batches_in_any_order():
    batches = [values(5_000, seed=s) * (s + 1) for s in range(3)]
    forth, back = (
        calibrated(MseActivation, ActivationGrid.SYMMETRIC, 4, *order) for order in (batches, reversed(batches))
    )
    assert float(forth.high) == pytest.approx(float(torch.stack([b.max() for b in batches]).mean()), rel=1e-6)
    for name in ("low", "high", "shares"):
        assert torch.allclose(getattr(forth, name), getattr(back, name), rtol=1e-6)  # float32 means


def test_training_moves_the_range_and_keeps_the_share():
    quantizer = calibrated(MseActivation, ActivationGrid.SYMMETRIC, 4, values(5_000))
    shares, high = quantizer.shares.clone(), quantizer.high.clone()
    quantizer.train()(3 * values(5_000))
    assert quantizer.shares.equal(shares)
    assert float(quantizer.high) == pytest.approx(float(high) * 1.02, rel=1e-5)  # 0.99 * 1 + 0.01 * 3
    top = max(-float(quantizer.low), float(quantizer.high)) * float(shares[0])
    assert float(quantizer.scale_and_zero_point()[0]) == pytest.approx(top / 7, rel=1e-5)


@pytest.mark.parametrize("group", [1, 0])
def test_no_other_share_of_the_largest_weight_errs_less(group):
    weight = values(5, 200) * torch.tensor([1.0, 0.1, 3.0, 1.0, 1.0])[:, None]
    weight[3, 0] = 50.0
    quantizer = MseWeight(3, weight, QuantOptions(weight_group=group))
    rows = weight if group else weight.reshape(1, -1)

    def errors(ratio):
        scale = rows.abs().amax(1, keepdim=True) * ratio / 3
        return (torch.round(rows / scale).clamp(-3, 3) * scale - rows).pow(2).sum(1)

    found = (quantizer(weight) - weight).view_as(rows).pow(2).sum(1)
    assert torch.allclose(found, torch.stack([errors(r) for r in RATIOS]).amin(0), rtol=1e-4)  # scales in float32
    codes, scale = quantizer.codes(weight)
    assert int(codes.abs().max()) == 3
    assert quantizer(weight).equal(codes * scale[:, None])


def test_weights_keep_their_share_of_a_magnitude_that_grows():
    weight = values(4, 50)
    quantizer = MseWeight(4, weight, QuantOptions())
    assert torch.allclose(quantizer.scale(2 * weight), 2 * quantizer.scale(weight))  # float32 products


def test_the_gradient_passes_rounding_and_clipping():
    weight = values(4, 50).requires_grad_()
    MseWeight(2, weight, QuantOptions())(weight).backward(values(4, 50, seed=1))
    assert weight.grad.equal(values(4, 50, seed=1))


@pytest.mark.parametrize("bits", [4, 2])
def test_what_trained_is_deployed(bits, tmp_path):
    model = fine_tuned("Inverted", bits, weight_quantizer="mse", act_quantizer="mse")
    assert isinstance(model.stored_quantizer("input"), MseActivation)  # it serves the pinned units too
    check_deployed(model, tmp_path)
    assert simulation_error(model) < 0.02


def test_shares_are_not_carried_to_other_widths():
    old = fine_tuned("Inverted", 8, 0, act_quantizer="mse")
    model = fine_tuned("Inverted", 4, 0, act_quantizer="mse")
    kept = carry_ranges(old, model)
    assert set(kept) == {root for root, spec in model.plan.stored.items() if spec != old.plan.stored[root]}
    assert "stem" in kept
    assert "input" not in kept  # it has 8 bits in both
