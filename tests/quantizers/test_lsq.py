"""LSQ and LSQ+: gradients of the papers, codes, starts, and the network that is deployed."""

import math

import pytest
import torch
from deployed import check_deployed, fine_tuned, simulation_error

from hawq.graph import ir
from hawq.integer.ops import TensorType
from hawq.qat.fold import NormState
from hawq.qat.plan import WeightSpec
from hawq.qat.unit import QuantizedUnit
from hawq.quantizers import ActivationGrid, QuantOptions
from hawq.quantizers.fake import _PIECE
from hawq.quantizers.lsq import LsqActivation, LsqWeight, quantize_by_step
from hawq.quantizers.lsq_plus import LsqPlusActivation, LsqPlusWeight
from hawq.quantizers.mse import MseActivation

STEPS = torch.tensor([-9.0, -2.0, -1.99, -1.2, -0.5, 0.0, 0.3, 0.75, 0.99, 1.0, 5.0])
"""In steps: outside, at and inside the bounds -2 and 1 of two signed bits."""


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def calibrated(quantizer, *batches):
    quantizer.calibrating = True
    for batch in batches:
        quantizer(batch)
    quantizer.calibrating = False
    return quantizer


def slope_of_step(u, lo, hi):
    """Equation 3 of 1902.08153, on v/s in floats of Python."""
    return lo if u <= lo else hi if u >= hi else round(u) - u


@pytest.mark.parametrize("step", [0.5, 0.25])  # powers of two, with which v / s is exact
def test_gradients_are_those_of_the_paper(step):
    value, size = (STEPS * step).requires_grad_(), torch.tensor(step, requires_grad=True)
    grad = values(len(STEPS))
    quantize_by_step(value, size, -2, 1).backward(grad)
    inside = [-2 < u < 1 for u in STEPS.tolist()]
    assert value.grad.tolist() == [g if i else 0.0 for g, i in zip(grad.tolist(), inside, strict=True)]
    expected = sum(g * slope_of_step(u, -2, 1) for g, u in zip(grad.tolist(), STEPS.tolist(), strict=True))
    assert float(size.grad) == pytest.approx(expected, rel=1e-5)  # a float32 sum of 11 products


def test_inside_the_range_gradients_are_those_of_rounding_passed_straight_through():
    value, size = values(6, 40).requires_grad_(), (torch.rand(6, 1) + 0.5).requires_grad_()
    grad = values(6, 40, seed=1)
    quantize_by_step(value, size, -8, 7).backward(grad)
    found = value.grad.clone(), size.grad.clone()
    value.grad = size.grad = None
    steps = (value / size).clamp(-8, 7)
    ((steps + (torch.round(steps) - steps).detach()) * size).backward(grad)
    assert torch.allclose(found[0], value.grad, rtol=1e-5)  # float32 in another order
    assert torch.allclose(found[1], size.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [_PIECE + 1, 3 * _PIECE + 5])
def test_pieces_leave_nothing_out(size):
    grad, found = values(size, seed=1), []
    for step in (torch.tensor(0.7), torch.tensor([0.7])):  # only a scalar is taken through in pieces
        value, step = values(size).requires_grad_(), step.requires_grad_()
        out = quantize_by_step(value, step, -2, 1)
        out.backward(grad)
        found.append((out, value.grad, step.grad.sum()))
    (out, value_grad, step_grad), (whole, whole_value_grad, whole_step_grad) = found
    assert out.equal(whole)
    assert value_grad.equal(whole_value_grad)
    assert float(step_grad) == pytest.approx(float(whole_step_grad), rel=1e-3)  # float32 sums in another order


def test_gradients_do_not_depend_on_the_memory_format():
    value, grad, found = values(4, 3, 5, 6), values(4, 3, 5, 6, seed=1), []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf, step = value.clone(memory_format=layout).requires_grad_(), torch.tensor(0.7, requires_grad=True)
        quantize_by_step(leaf, step, 0, 3, torch.tensor(-0.7, requires_grad=True), 1).backward(grad)
        found.append((leaf.grad, float(step.grad)))
    assert found[0][0].equal(found[1][0])
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)  # float32 sums in another order


@pytest.mark.parametrize("zero_point", [0, 1, 3])
def test_gradients_of_the_offset_are_those_of_the_paper(zero_point):
    steps = torch.tensor([-5.0, -1.0 * zero_point, 0.25 - zero_point, 0.625, 2.75 - zero_point, 3.0 - zero_point, 9.0])
    value, size = (steps * 0.5).requires_grad_(), torch.tensor(0.5, requires_grad=True)
    offset = torch.tensor(-0.5 * zero_point, requires_grad=True)
    grad = values(len(steps))
    out = quantize_by_step(value, size, 0, 3, offset, zero_point)
    codes = [min(max(round(u) + zero_point, 0), 3) for u in steps.tolist()]
    assert out.tolist() == [(code - zero_point) * 0.5 for code in codes]
    out.backward(grad)
    shifted = (steps + zero_point).tolist()  # (v - offset) / s
    assert float(size.grad) == pytest.approx(
        sum(g * slope_of_step(u, 0, 3) for g, u in zip(grad.tolist(), shifted, strict=True)), rel=1e-5, abs=1e-6
    )
    outside = [not 0 < u < 3 for u in shifted]
    assert float(offset.grad) == pytest.approx(
        sum(g for g, o in zip(grad.tolist(), outside, strict=True) if o), rel=1e-5
    )
    assert value.grad.tolist() == [0.0 if o else g for g, o in zip(grad.tolist(), outside, strict=True)]


def test_the_gradient_of_a_step_is_scaled():
    weight = values(4, 3, 2, 2)
    for group, count in ((1, 12), (2, 24), (0, 48)):
        quantizer = LsqWeight(3, weight, QuantOptions(weight_group=group))
        quantizer(weight).sum().backward()
        size = quantizer.step_size.detach().clone().requires_grad_()
        quantize_by_step(weight.reshape(len(size), -1), size[:, None], -4, 3).sum().backward()
        assert torch.allclose(quantizer.step_size.grad, size.grad / math.sqrt(count * 3), rtol=1e-5)
    activation = calibrated(LsqActivation(4, ActivationGrid.UNSIGNED, QuantOptions()), values(5, 2, 3, 3).relu())
    activation(values(5, 2, 3, 3).relu()).sum().backward()
    size = activation.step_size.detach().clone().requires_grad_()
    quantize_by_step(values(5, 2, 3, 3).relu(), size, 0, 15).sum().backward()
    assert float(activation.step_size.grad) == pytest.approx(float(size.grad) / math.sqrt(18 * 15), rel=1e-5)


@pytest.mark.parametrize(("bits", "lowest"), [(2, -2), (3, -4), (4, -8), (7, -64), (8, -127)])
@pytest.mark.parametrize("cls", [LsqWeight, LsqPlusWeight])
def test_weights_have_all_codes(cls, bits, lowest):
    quantizer = cls(bits, values(3, 500), QuantOptions())
    weight = torch.linspace(-300, 300, 5000).repeat(3, 1) * quantizer.scale(values(3, 500))[:, None]
    codes, scale = quantizer.codes(weight)
    assert codes[0].unique().tolist() == list(range(lowest, 2 ** (bits - 1)))
    assert quantizer(weight).equal(codes * scale[:, None])


@pytest.mark.parametrize("bits", [2, 8])
def test_the_lowest_code_survives_a_batch_norm_that_turns_signs(bits):
    ones = torch.ones(2)
    norm = NormState(torch.tensor([1.0, -1.0]), torch.zeros(2), torch.zeros(2), ones, 0.0)
    unit = QuantizedUnit(
        ir.Linear(weight="w", bias=None), {"w": values(2, 50)}, norm, WeightSpec(bits, "lsq"), QuantOptions()
    )
    unit.weight.data[:] = -100.0
    lowest = -2 if bits == 2 else -127
    codes = unit.codes(TensorType((50,), 8, False, 0.1)).weight
    assert codes.unique(dim=1).flatten().tolist() == [lowest, -lowest]


def test_starts():
    weight = values(4, 300) * 0.1 + 0.02
    rows = weight.double()
    lsq = LsqWeight(4, weight, QuantOptions()).step_size
    assert torch.allclose(lsq.double(), 2 * rows.abs().mean(1) / math.sqrt(7))
    whole = LsqWeight(4, weight, QuantOptions(weight_group=0))
    assert whole.step_size.shape == (1,)
    assert whole.scale(weight).shape == (4,)
    mean, std = rows.mean(1), rows.std(1, correction=0)
    plus = LsqPlusWeight(4, weight, QuantOptions()).step_size
    assert torch.allclose(plus.double(), torch.maximum((mean - 3 * std).abs(), (mean + 3 * std).abs()) / 8)


def test_an_activation_starts_at_the_mean_over_the_batches_and_does_not_observe():
    batches = [values(4, 100, seed=s).relu() * (s + 1) for s in range(3)]
    quantizer = calibrated(LsqActivation(4, ActivationGrid.UNSIGNED, QuantOptions()), *batches)
    wanted = torch.stack([2 * b.mean() / math.sqrt(15) for b in batches]).mean()
    assert quantizer.step_size.item() == pytest.approx(float(wanted), rel=1e-6)
    before = quantizer.step_size.clone()
    quantizer.train()(batches[2] * 10)
    assert quantizer.step_size.equal(before)
    quantizer.start_calibration()
    again = calibrated(quantizer, batches[0]).step_size.item()
    assert again == pytest.approx(2 * float(batches[0].mean()) / 15**0.5, rel=1e-6)


@pytest.mark.parametrize("bits", [2, 4])
def test_a_signed_activation_starts_at_the_range_of_least_error(bits):
    batch = values(8, 1000) + 1
    quantizer = calibrated(LsqPlusActivation(bits, ActivationGrid.SYMMETRIC, QuantOptions()), batch)
    reference = calibrated(MseActivation(bits, ActivationGrid.AFFINE, QuantOptions()), batch)
    scale, zero_point = reference.scale_and_zero_point()
    found, zero = quantizer.scale_and_zero_point()
    assert float(found) == pytest.approx(float(scale), rel=1e-6)
    assert zero == zero_point
    assert 0 < zero < 2**bits
    kind = quantizer.tensor_type((1000,))
    assert (kind.signed, kind.zero_point) == (False, zero)


def test_an_offset_far_outside_keeps_its_zero_point_among_the_codes():
    quantizer = calibrated(LsqPlusActivation(4, ActivationGrid.AFFINE, QuantOptions()), values(8, 100))
    for offset, expected in ((-1e9, 15), (1e9, 0), (float("nan"), 0)):
        quantizer.offset.data.fill_(offset)
        assert quantizer.scale_and_zero_point()[1] == expected


def test_lsq_has_no_zero_point_and_lsq_plus_no_offset_where_nothing_is_negative():
    assert LsqActivation(4, ActivationGrid.AFFINE, QuantOptions()).grid is ActivationGrid.SYMMETRIC
    plain = calibrated(LsqPlusActivation(4, ActivationGrid.UNSIGNED, QuantOptions()), values(8, 100).relu())
    assert [name for name, _ in plain.named_parameters()] == ["step_size"]


@pytest.mark.parametrize("quantizer", ["lsq", "lsq+"])
def test_a_step_below_zero_counts_by_its_magnitude(quantizer):
    model = fine_tuned("Inverted", 4, 0, weight_quantizer=quantizer, act_quantizer=quantizer)
    expected = model.lower()
    for name, parameter in model.named_parameters():
        if name.endswith("step_size"):
            parameter.data.neg_()
    found = model.lower()
    assert all(found.tensors[name].equal(tensor) for name, tensor in expected.tensors.items())
    assert found.ops == expected.ops


def test_a_dead_channel_has_a_positive_step():
    weight = values(3, 20)
    weight[1] = 0
    codes, scale = LsqWeight(2, weight, QuantOptions()).codes(weight)
    assert bool((scale > 0).all())
    assert codes[1].tolist() == [0.0] * 20


@pytest.mark.parametrize("quantizer", ["lsq", "lsq+"])
@pytest.mark.parametrize("bits", [4, 2])
def test_what_trained_is_deployed(quantizer, bits, tmp_path):
    model = fine_tuned("Inverted", bits, weight_quantizer=quantizer, act_quantizer=quantizer)
    learned = [p for n, p in model.named_parameters() if n.endswith(("step_size", "offset"))]
    assert len(learned) == (9 if quantizer == "lsq+" else 8)  # four inner units and what they read; one goes negative
    assert all(bool((p.grad != 0).any()) for p in learned)
    check_deployed(model, tmp_path)
    assert simulation_error(model) < 0.02
