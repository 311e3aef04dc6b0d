"""Signs and their scales: XNOR and XNOR++."""

import math

import pytest
import torch
from deployed import check_deployed, fine_tuned

from hawq.integer.ops import Conv2d
from hawq.quantizers import ActivationGrid, QuantOptions
from hawq.quantizers.surrogates import SignGradient
from hawq.quantizers.xnor import XnorActivation, XnorWeight
from hawq.quantizers.xnor_plus import XnorPlusActivation, XnorPlusWeight

ACTIVATIONS = [XnorActivation, XnorPlusActivation]
GRIDS = [ActivationGrid.UNSIGNED, ActivationGrid.SYMMETRIC, ActivationGrid.AFFINE]


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def calibrated(cls, grid, *batches, **options):
    quantizer = cls(1, grid, QuantOptions(**options))
    quantizer.calibrating = True
    for batch in batches:
        quantizer(batch)
    quantizer.calibrating = False
    return quantizer.eval()


@pytest.mark.parametrize("cls", [XnorWeight, XnorPlusWeight])
def test_weights_are_signs_times_the_mean_magnitude(cls):
    weight = values(4, 3, 3, 3)
    weight[0, 0, 0] = torch.tensor([0.0, -0.0, -1e-30])
    quantizer = cls(1, weight, QuantOptions())
    codes, scale = quantizer.codes(weight)
    assert codes.flatten().tolist() == [1.0 if w >= 0 else -1.0 for w in weight.flatten().tolist()]
    assert scale.tolist() == pytest.approx([sum(map(abs, row)) / 27 for row in weight.flatten(1).tolist()], rel=1e-5)
    assert quantizer(weight).equal(codes * scale.view(-1, 1, 1, 1))
    shared = cls(1, weight, QuantOptions(weight_group=0))
    assert shared.scale(weight).tolist() == pytest.approx([float(weight.abs().mean())] * 4, rel=1e-5)


def test_gradients_of_xnor_weights_are_those_of_the_paper():
    """Section 3.1 of 1603.05279: dC/dw_i = dC/dq_i (1/n + alpha * [|w_i| < 1])."""
    weight, grad = (values(3, 2, 2, 2) * 1.2).requires_grad_(), values(3, 2, 2, 2, seed=1)
    XnorWeight(1, weight, QuantOptions())(weight).backward(grad)
    alpha = weight.detach().abs().flatten(1).mean(1).view(-1, 1, 1, 1)
    expected = grad * (1 / 8 + alpha * (weight.detach().abs() < 1))
    assert torch.allclose(weight.grad, expected, rtol=1e-5)  # float32 in another order
    assert bool((weight.detach().abs() >= 1).any())


def test_gradients_of_xnor_plus_weights():
    """q = gamma sign(w): gamma gets sum g sign(w), over sqrt(n); w gets g gamma where |w| < 1 (1909.13863)."""
    weight, grad = (values(3, 2, 2, 2) * 1.2).requires_grad_(), values(3, 2, 2, 2, seed=1)
    quantizer = XnorPlusWeight(1, weight, QuantOptions())
    quantizer.gain.data *= torch.tensor([1.0, 3.0, -2.0])  # a magnitude counts
    quantizer(weight).backward(grad)
    gamma = quantizer.gain.detach().abs().view(-1, 1, 1, 1)
    assert torch.allclose(weight.grad, grad * gamma * (weight.detach().abs() < 1), rtol=1e-5)
    expected = (grad * weight.detach().sign()).flatten(1).sum(1) / math.sqrt(8) * torch.tensor([1.0, 1.0, -1.0])
    assert torch.allclose(quantizer.gain.grad, expected, rtol=1e-5)


@pytest.mark.parametrize("cls", [XnorWeight, XnorPlusWeight])
def test_a_dead_channel_has_a_positive_scale(cls):
    weight = values(3, 20)
    weight[1] = 0
    codes, scale = cls(1, weight, QuantOptions()).codes(weight)
    assert float(scale[1]) == float(scale.max()) * 2**-16
    assert codes[1].tolist() == [1.0] * 20


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("cls", ACTIVATIONS)
def test_activations_start_at_the_calibration(cls, grid):
    batches = [values(5, 40, seed=s) * (s + 1) for s in range(3)]
    if grid is ActivationGrid.UNSIGNED:
        batches = [batch.relu() for batch in batches]
        mean = sum(float(batch.mean()) for batch in batches) / 3
    else:
        mean = 0.0
    quantizer = calibrated(cls, grid, *batches)
    levels = quantizer.levels()
    assert levels.thresholds.tolist() == pytest.approx([mean], rel=1e-6)
    assert levels.codes.tolist() == [-1, 1]
    assert (levels.bits, levels.signed) == (2, True)
    single = calibrated(cls, grid, batches[0])
    centred = batches[0] - single.threshold.detach()
    assert single.levels().scale == pytest.approx(float(centred.abs().mean()), rel=1e-5)
    out = single(batches[0]).detach()
    assert out.equal(torch.where(centred >= 0, 1.0, -1.0) * single.step())
    for factor in (0.9, 1.1):  # the start has the least squared error
        assert float((out - centred).square().sum()) < float((out * factor - centred).square().sum())


@pytest.mark.parametrize("gradient", SignGradient)
@pytest.mark.parametrize("cls", ACTIVATIONS)
def test_gradients_of_activations(cls, gradient):
    quantizer = calibrated(cls, ActivationGrid.UNSIGNED, values(4, 50).relu(), sign_gradient=gradient.value)
    value, grad = values(4, 50, seed=2).relu().requires_grad_(), values(4, 50, seed=3)
    out = quantizer(value)
    out.backward(grad)
    scale, shifted = quantizer.step(), (value - quantizer.threshold).detach()
    expected = grad * gradient.slope(shifted / scale)
    assert torch.allclose(value.grad, expected, rtol=1e-5)  # s * g(u) * 1/s
    per_image = math.sqrt(50)
    assert float(quantizer.threshold.grad) == pytest.approx(float(-expected.sum()) / per_image, rel=1e-4)
    if cls is XnorPlusActivation:
        signs = torch.where(shifted >= 0, 1.0, -1.0)
        assert float(quantizer.gain.grad) == pytest.approx(float((grad * signs).sum()) / per_image, rel=1e-4)


def test_the_triangle_is_the_default():
    assert XnorActivation(1, ActivationGrid.SYMMETRIC, QuantOptions()).gradient is SignGradient.TRIANGLE


def test_only_tensors_that_are_never_negative_learn_a_threshold():
    names = {grid: [n for n, _ in XnorActivation(1, grid, QuantOptions()).named_parameters()] for grid in GRIDS}
    assert names == dict(zip(GRIDS, (["threshold"], [], []), strict=True))


def test_xnor_follows_its_batches_and_xnor_plus_learns():
    batch = values(4, 50)
    moving = calibrated(XnorActivation, ActivationGrid.SYMMETRIC, batch, act_range_momentum=0.75).train()
    before = float(moving.step())
    moving(batch * 5)
    assert float(moving.step()) == pytest.approx(2 * before, rel=1e-6)  # 0.75 + 0.25 * 5
    still = calibrated(XnorActivation, ActivationGrid.SYMMETRIC, batch, act_range_momentum=-1).train()
    still(batch * 5)
    assert float(still.step()) == before
    learned = calibrated(XnorPlusActivation, ActivationGrid.SYMMETRIC, batch).train()
    learned(batch * 5)
    assert float(learned.step()) == before


@pytest.mark.parametrize("cls", ACTIVATIONS)
def test_training_gives_every_value_the_level_that_is_deployed(cls):
    quantizer = calibrated(cls, ActivationGrid.UNSIGNED, values(4, 50).relu())
    levels = quantizer.levels()
    at = levels.thresholds.float()
    value = torch.cat([at, at.nextafter(torch.tensor(-9e9)), at.nextafter(torch.tensor(9e9)), values(500)])
    codes = torch.tensor([levels.code_of(v) for v in value.tolist()])
    assert quantizer(value).equal(codes.float() * quantizer.step())
    assert codes[:3].tolist() == [1, -1, 1]


def test_padding_is_quantized_with_the_map_or_stays_zero():
    signed = calibrated(XnorActivation, ActivationGrid.SYMMETRIC, values(4, 50))
    unsigned = calibrated(XnorActivation, ActivationGrid.UNSIGNED, values(4, 50).relu())
    assert (signed.fill(), unsigned.fill()) == (1, -1)
    published = calibrated(XnorActivation, ActivationGrid.SYMMETRIC, values(4, 50), pad_after_quant=True)
    assert published.fill() == 0
    fills = {}
    for after in (False, True):
        model = fine_tuned("Inverted", 1, 0, weight_quantizer="xnor", act_quantizer="xnor", pad_after_quant=after)
        ops = [op for op in model.lower().ops if isinstance(op, Conv2d) and any(op.padding)]
        fills[after] = [op.fill for op in ops]
    assert fills == {False: [0, -1, -1], True: [0, 0, 0]}  # the image, then two maps behind a ReLU6


@pytest.mark.parametrize("quantizer", ["xnor", "xnor++"])
@pytest.mark.parametrize("after", [False, True])
def test_what_trained_is_deployed(quantizer, after, tmp_path):
    model = fine_tuned("Inverted", 1, weight_quantizer=quantizer, act_quantizer=quantizer, pad_after_quant=after)
    check_deployed(model, tmp_path)
