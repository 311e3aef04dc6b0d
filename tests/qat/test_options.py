"""What each option of quantization does to the model and to the integers."""

import pytest
import torch
from networks import build, images
from schemes import calibrated

from hawq.integer import ops as o


def weighted(program):
    return [op for op in program.ops if isinstance(op, o.Conv2d | o.Linear)]


def test_batch_norms_are_fixed_after_so_many_batches():
    model = calibrated("Residual", "uniform4", fix_bn=False, fix_bn_after=2).train()
    mean = model.unit("conv1").norm.mean
    seen = []
    for seed in range(4):
        model(images(8, seed=seed))
        seen.append(mean.clone())
    assert not seen[0].equal(seen[1])
    assert seen[1].equal(seen[2])
    assert seen[2].equal(seen[3])


@pytest.mark.parametrize("momentum", [0.0, 0.3, 1.0])
def test_a_batch_moves_the_statistics_by_their_momentum(momentum):
    means = {}
    for m in (momentum, 1.0):
        model = calibrated("Residual", "uniform4", fix_bn=False, bn_momentum=m).train()
        before = model.unit("stem").norm.mean.clone()
        model(images(8))
        means[m] = model.unit("stem").norm.mean.clone()
    assert torch.allclose(means[momentum], before.lerp(means[1.0], momentum), atol=1e-6)  # float32 rounds


def test_fixed_batch_norms_never_move():
    model = calibrated("Residual", "uniform4", fix_bn=True).train()
    before = model.unit("conv1").norm.mean.clone()
    model(images(8))
    assert model.unit("conv1").norm.mean.equal(before)


@pytest.mark.parametrize("kind", ["act", "weight"])
def test_percentiles_make_scales_smaller(kind):
    whole = calibrated("Residual", "uniform4")
    clipped = calibrated("Residual", "uniform4", **{f"{kind}_quantizer": "percentile", f"{kind}_percentile": 90.0})
    if kind == "act":
        assert all(float(q.step()) < float(whole.stored[name].step()) for name, q in clipped.stored.items()
                   if q.bits < 16)  # fmt: skip
    else:
        one, other = (model.unit("conv1") for model in (clipped, whole))
        assert bool((one.quantizer.scale(one.weight) < other.quantizer.scale(other.weight)).all())


def test_without_channel_wise_scales_a_layer_has_one():
    unit = calibrated("Residual", "uniform8", channel_wise=False).unit("conv2")
    codes, scale = unit.quantizer.codes(unit.weight)
    assert scale.unique().numel() == 1
    assert codes.flatten(1).abs().amax(1).min() < 127  # a channel that would fill the codes with a scale of its own
    own = calibrated("Residual", "uniform8").unit("conv2")
    assert set(own.quantizer.codes(own.weight)[0].flatten(1).abs().amax(1).tolist()) == {127}


@pytest.mark.parametrize("bits", [6, 12])
def test_biases_keep_to_their_bits(bits):
    model = calibrated("Branches", "uniform8", bias_bits=bits)
    unclipped = calibrated("Branches", "uniform8")
    unclipped.load_state_dict(model.state_dict())
    program, whole = model.lower(), unclipped.lower()
    limit = 2 ** (bits - 1)
    cut = 0
    for op in weighted(program):
        bias, free = (p.constants(op)["bias"] for p in (program, whole))
        assert bias.equal(free.clamp(-limit, limit - 1))
        cut += int((bias != free).sum())
    assert cut > 0
    unit, source = model.unit("left"), model.input_quantizer("stem")
    bias = unit._fake_bias(unit.bias, None, source)
    steps = bias / (unit.quantizer.scale(unit.weight) * source.step())
    assert steps.abs().max() <= limit  # training sees the clipped bias, too


def test_the_asymmetric_mode_gives_signed_tensors_zero_points():
    kinds = {a: calibrated("Inverted", asymmetric=a).lower().types for a in (False, True)}
    assert kinds[False]["input"].zero_point == 0
    assert kinds[True]["input"].zero_point > 0
    assert not kinds[True]["input"].signed


def test_fixed_point_evaluation_is_the_simulation():
    image = images(4)
    model = calibrated("Residual", "uniform4", fixed_point=True).eval()
    with torch.no_grad():
        simulated = model(image)
    integers = calibrated("Residual", "uniform4")(image)
    assert simulated.equal(model._simulate(image))
    assert not simulated.equal(integers)
    assert torch.allclose(simulated, integers, atol=0.2 * float(build("Residual")(image).detach().std()))
