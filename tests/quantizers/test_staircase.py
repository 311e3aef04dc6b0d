"""Steps of learned widths: FATNN, ternary and N2UQ."""

import math

import pytest
import torch
from deployed import check_deployed, fine_tuned

from hawq.errors import HawqError
from hawq.quantizers import ActivationGrid, QuantOptions
from hawq.quantizers.fatnn import FatnnActivation, FatnnWeight
from hawq.quantizers.n2uq import N2uqActivation, N2uqWeight
from hawq.quantizers.staircase import corners_of, staircase
from hawq.quantizers.ternary import TernaryActivation, TernaryWeight

ACTIVATIONS = [
    (FatnnActivation, 2),
    (TernaryActivation, 2),
    (N2uqActivation, 2),
    (N2uqActivation, 3),
    (N2uqActivation, 4),
]
GRIDS = [ActivationGrid.UNSIGNED, ActivationGrid.SYMMETRIC]


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def calibrated(cls, bits, grid, *batches):
    quantizer = cls(bits, grid, QuantOptions())
    quantizer.calibrating = True
    for batch in batches:
        quantizer(batch)
    quantizer.calibrating = False
    return quantizer.eval()


def fatnn_formula(x, slopes):
    """y = sum_j round(clip((x - sum_(k<j) 1/a_k) a_j, 0, 1)), a half rounded up, in floats of Python."""
    total, begins = 0, 0.0
    for slope in slopes:
        total += math.floor(min(max((x - begins) * slope, 0.0), 1.0) + 0.5)
        begins += 1 / slope
    return total


def fatnn_slopes(x, slopes):
    """Derivatives of the formula without rounding, to x and to every a, in floats of Python."""
    begins, to_x, to_a = 0.0, 0.0, [0.0] * len(slopes)
    for j, slope in enumerate(slopes):
        if 0 < (x - begins) * slope < 1:
            to_x += slope
            to_a[j] += x - begins
            for k in range(j):
                to_a[k] += slope / slopes[k] ** 2
        begins += 1 / slope
    return to_x, to_a


def test_levels_and_gradients_are_those_of_fatnn():
    slopes = [2.0, 0.5, 4.0]  # powers of two: sums and quotients are exact
    value = torch.linspace(-1, 4, 161).requires_grad_()
    slope, grad = torch.tensor(slopes, requires_grad=True), values(161)
    code = staircase(value, corners_of(1 / slope, 0))
    assert code.tolist() == [fatnn_formula(x, slopes) for x in value.tolist()]
    assert set(code.tolist()) == {0.0, 1.0, 2.0, 3.0}
    code.backward(grad)
    inside = [x not in (0.0, 0.5, 2.5, 2.75) for x in value.tolist()]  # at a corner either neighbour's slope is right
    expected = [fatnn_slopes(x, slopes) for x in value.tolist()]
    assert value.grad[inside].tolist() == (grad * torch.tensor([e[0] for e in expected]))[inside].tolist()
    value.grad, slope.grad = None, None
    kept = value.detach()[inside]
    staircase(kept, corners_of(1 / slope, 0)).backward(grad[inside])
    wanted = (torch.tensor([e[1] for e in expected])[inside] * grad[inside][:, None]).sum(0)
    assert torch.allclose(slope.grad, wanted, rtol=1e-4, atol=1e-5)  # float32 sums in another order


def test_a_signed_ternary_has_a_slope_on_either_side_of_zero():
    """round(clip(a_0 x, -1, 0)) + round(clip(a_1 x, 0, 1)), a half reached from above."""
    value = torch.tensor([-9.0, -0.51, -0.5, -0.49, 0.0, 0.12, 0.125, 1.0])
    code = staircase(value, corners_of(torch.tensor([1.0, 0.25]), -1)) - 1
    assert code.tolist() == [-1, -1, 0, 0, 0, 0, 1, 1]


def n2uq_slope(x, start, widths):
    """Derivative to x of 2111.14826, section 3.2: 1 / w_j between T_j - w_j/2 and T_j + w_j/2, else 0."""
    threshold = start
    for width in widths:
        if threshold < x < threshold + width:
            return 1 / width
        threshold += width
    return 0.0


@pytest.mark.parametrize("grid", GRIDS)
def test_n2uq_learns_thresholds_and_keeps_levels_uniform(grid):
    quantizer = calibrated(N2uqActivation, 2, grid, values(4, 50).abs())
    widths, start, gain = [0.5, 1.0, 0.25], 0.125, 2.0
    for parameter, number in ((quantizer.step_widths, widths), (quantizer.start, start), (quantizer.gain, gain)):
        parameter.data.copy_(torch.tensor(number))
    first = start - (sum(widths[:2]) if grid.signed else 0)  # code 0 has its corner at the start
    thresholds = [first + sum(widths[:j]) + widths[j] / 2 for j in range(3)]
    levels = quantizer.levels()
    assert levels.thresholds.tolist() == thresholds
    assert levels.codes.tolist() == ([-2, -1, 0, 1] if grid.signed else [0, 1, 2, 3])
    assert (levels.scale, levels.bits, levels.signed) == (2.0, 2, grid.signed)
    value = (torch.linspace(-3, 3, 193) + 1 / 64).requires_grad_()  # between all corners
    out = quantizer(value)
    assert out.tolist() == [2.0 * levels.code_of(v) for v in value.tolist()]
    out.sum().backward()
    assert value.grad.tolist() == [2.0 * n2uq_slope(v, first, widths) for v in value.tolist()]


def test_the_gradients_of_thresholds_are_those_of_the_polygon():
    """Differences of the smooth staircase, in float64, tell the gradients to widths and start."""
    corners = torch.tensor([0.1, 0.7, 1.2, 2.0], dtype=torch.float64, requires_grad=True)
    value = values(50).double().abs() * 1.5
    assert torch.autograd.gradcheck(lambda c: _smooth(value, c), (corners,))
    found = torch.autograd.grad(staircase(value, corners).sum(), corners)[0]
    expected = torch.autograd.grad(_smooth(value, corners).sum(), corners)[0]
    assert torch.allclose(found, expected, rtol=1e-12)  # float64 sums in another order


def _smooth(value, corners):
    segment = torch.searchsorted(corners.detach(), value)  # 0 below the first corner
    inside = (segment > 0) & (segment < len(corners))
    left, right = corners[(segment - 1).clamp(min=0)], corners[segment.clamp(max=len(corners) - 1)]
    share = torch.where(inside, (value - left) / torch.where(inside, right - left, torch.ones_like(left)), 0.0)
    return (segment - 1).clamp(0, len(corners) - 1) + share


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("cls", "bits"), ACTIVATIONS)
def test_the_start_is_lsqs_and_the_scale_fits(cls, bits, grid):
    batches = [values(6, 40, seed=s) * (s + 1) for s in range(3)]
    batches = batches if grid.signed else [batch.relu() for batch in batches]
    quantizer = calibrated(cls, bits, grid, *batches)
    wanted = sum(2 * float(batch.abs().mean()) / math.sqrt(quantizer.hi) for batch in batches) / 3
    assert quantizer.step_widths.tolist() == pytest.approx([wanted] * (quantizer.hi - quantizer.lo), rel=1e-5)
    levels = quantizer.levels()
    expected = [(c - 0.5) * wanted for c in range(quantizer.lo + 1, quantizer.hi + 1)]
    assert levels.thresholds.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)  # float32 sums of widths
    single = calibrated(cls, bits, grid, batches[0])
    code = (single(batches[0]) / single.step()).detach()
    scale = float((batches[0] * code).sum() / (code * code).sum())
    assert float(single.step().detach()) == pytest.approx(scale, rel=1e-5)


@pytest.mark.parametrize(
    ("cls", "bits", "unsigned", "signed"),
    [(FatnnActivation, 2, [0, 1, 2, 3], [-1, 0, 1]), (TernaryActivation, 2, [0, 1, 2], [-1, 0, 1]),
     (N2uqActivation, 2, [0, 1, 2, 3], [-2, -1, 0, 1]), (N2uqActivation, 3, list(range(8)), list(range(-4, 4)))],
)  # fmt: skip
def test_codes(cls, bits, unsigned, signed):
    for grid, codes in zip((*GRIDS, ActivationGrid.AFFINE), (unsigned, signed, signed), strict=True):
        quantizer = calibrated(cls, bits, grid, values(9, 9).abs())
        assert quantizer.levels().codes.tolist() == codes
        kind = quantizer.tensor_type((9,))
        assert (kind.bits, kind.signed, kind.zero_point) == (2 if bits == 2 else 3, codes[0] < 0, 0)
        wide = torch.linspace(-20, 20, 4001)
        assert (quantizer(wide) / quantizer.step()).round().unique().tolist() == codes


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("cls", "bits"), ACTIVATIONS)
def test_training_gives_every_value_the_level_that_is_deployed(cls, bits, grid):
    quantizer = calibrated(cls, bits, grid, values(8, 60))
    generator = torch.Generator().manual_seed(1)
    quantizer.step_widths.data *= 0.2 + torch.rand(quantizer.step_widths.shape, generator=generator)
    levels = quantizer.levels()
    at = levels.thresholds.float()
    value = torch.cat([at, at.nextafter(torch.tensor(-9e9)), at.nextafter(torch.tensor(9e9)), values(500) * 3])
    codes = torch.tensor([levels.code_of(v) for v in value.tolist()])
    assert quantizer(value).equal(codes.float() * quantizer.step())
    assert quantizer.fill() == levels.code_of(0.0)


def test_a_training_without_a_calibration_begins_with_its_first_batch():
    quantizer, batch = FatnnActivation(2, ActivationGrid.UNSIGNED, QuantOptions()), values(5, 40).relu()
    with pytest.raises(HawqError, match="calibrate or train"):
        quantizer.levels()
    quantizer(batch)
    assert quantizer.levels() is not None
    assert quantizer.step_widths.equal(calibrated(FatnnActivation, 2, ActivationGrid.UNSIGNED, batch).step_widths)
    before = quantizer.step_widths.clone()
    quantizer(batch * 5)
    assert quantizer.step_widths.equal(before)


def test_widths_that_training_drives_to_zero_keep_their_order():
    quantizer = calibrated(N2uqActivation, 3, ActivationGrid.UNSIGNED, values(5, 40).relu())
    quantizer.step_widths.data = torch.tensor([0.5, 0.0, -1e-9, 1e-30, 0.5, 0.0, 0.0])
    assert bool((quantizer.levels().thresholds.diff() > 0).all())
    value = values(400).relu().requires_grad_()
    quantizer(value).sum().backward()
    assert all(bool(torch.isfinite(t.grad).all()) for t in (value, *quantizer.parameters()))
    zero = calibrated(N2uqActivation, 3, ActivationGrid.UNSIGNED, torch.zeros(5, 40))
    assert zero.levels().scale > 0


def test_thresholds_that_are_not_finite_are_an_error():
    quantizer = calibrated(FatnnActivation, 2, ActivationGrid.UNSIGNED, values(5, 40).relu())
    quantizer.step_widths.data[1] = float("nan")
    with pytest.raises(HawqError, match="not finite"):
        quantizer.levels()


def test_ternary_weights_are_those_of_ternary_weight_networks():
    weight = values(4, 3, 3, 3) * 0.1
    quantizer = TernaryWeight(2, weight, QuantOptions())
    codes, scale = quantizer.codes(weight)
    for channel, row in enumerate(weight.flatten(1).tolist()):
        limit = 0.7 * sum(map(abs, row)) / len(row)
        assert codes[channel].flatten().tolist() == [float((w > limit) - (w < -limit)) for w in row]
        kept = [abs(w) for w in row if abs(w) > limit]
        assert float(scale[channel]) == pytest.approx(sum(kept) / len(kept), rel=1e-5)
    assert quantizer(weight).equal(codes * scale.view(-1, 1, 1, 1))


@pytest.mark.parametrize("cls", [TernaryWeight, FatnnWeight])
def test_gradients_of_ternary_weights(cls):
    """A gain gets the sum of g t, over sqrt(n); weights get g as published (TWN), or gain * a * g inside (FATNN)."""
    weight, grad = (values(3, 2, 2, 2) * 0.1).requires_grad_(), values(3, 2, 2, 2, seed=1)
    quantizer = cls(2, weight, QuantOptions())
    quantizer(weight).backward(grad)
    codes, scale = quantizer.codes(weight)
    expected = (grad * codes).flatten(1).sum(1) / math.sqrt(8)
    assert torch.allclose(quantizer.gain.grad, expected, rtol=1e-5)  # float32 sums in another order
    if cls is FatnnWeight:
        width = quantizer.step_widths.detach()[:, :1].view(-1, 1, 1, 1)
        grad = grad * (weight.abs() < width) * scale.view(-1, 1, 1, 1) / width
    assert torch.allclose(weight.grad, grad, rtol=1e-5)


def test_fatnn_weights_start_as_ternary_ones_and_learn_both_widths():
    weight = values(3, 40) * 0.1
    quantizer = FatnnWeight(2, weight, QuantOptions())
    assert quantizer.codes(weight)[0].equal(TernaryWeight(2, weight, QuantOptions()).codes(weight)[0])
    quantizer(weight).square().sum().backward()
    assert quantizer.step_widths.grad.shape == (3, 2)
    assert bool((quantizer.step_widths.grad != 0).all())
    quantizer.step_widths.data[:, 0] = 4.0  # no weight lies half as far below zero
    assert quantizer.codes(weight)[0].unique().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_n2uq_weights_are_evenly_spaced_and_fill_their_levels(bits):
    weight = (values(2, 2000) * torch.tensor([[0.1], [3.0]])).requires_grad_()
    quantizer, top = N2uqWeight(bits, weight, QuantOptions()), 2**bits - 1
    codes, scale = quantizer.codes(weight)
    assert codes.unique().tolist() == [float(k) for k in range(-top, top + 1, 2)]
    mean = weight.detach().abs().mean(1)
    assert torch.allclose(scale, mean / 2 ** (bits - 1))
    reach = (mean * top / 2 ** (bits - 1))[:, None]
    n = 2**bits - 1  # equation 10: 2 (round(n (clip(w/r, -1, 1) + 1) / 2) / n - 1/2) r
    expected = 2 * (torch.round(n * ((weight.detach() / reach).clamp(-1, 1) + 1) / 2) / n - 0.5) * reach
    assert torch.allclose(quantizer(weight), expected, rtol=1e-5)  # float32 in another order
    quantizer(weight).sum().backward()
    assert weight.grad.equal((weight.detach().abs() <= scale[:, None] * top).float())
    assert quantizer.codes(torch.zeros(2, 5))[0].abs().eq(1).all()


@pytest.mark.parametrize("cls", [TernaryWeight, FatnnWeight, N2uqWeight])
def test_a_layer_may_share_its_scale_and_channels_may_be_dead(cls):
    weight = values(4, 30)
    weight[1] = 0
    codes, scale = cls(2, weight, QuantOptions()).codes(weight)
    assert bool((scale > 0).all())
    assert bool((codes[1] == 0).all()) or cls is N2uqWeight  # which has no level at zero
    shared = cls(2, weight, QuantOptions(weight_group=0))
    assert shared.scale(weight).unique().numel() == 1
    assert shared.codes(weight)[1].shape == (4,)


@pytest.mark.parametrize(("quantizer", "bits"), [("fatnn", 2), ("ternary", 2), ("n2uq", 2), ("n2uq", 3)])
def test_what_trained_is_deployed(quantizer, bits, tmp_path):
    model = fine_tuned("Inverted", bits, weight_quantizer=quantizer, act_quantizer=quantizer)
    check_deployed(model, tmp_path)
