"""What each option of quantization does to the model and to the integers."""

import pytest
import torch
from deployed import check_deployed, fine_tuned, simulation_error
from networks import build, images
from schemes import calibrated
from torch import nn

from hawq.errors import UsageError
from hawq.graph.trace import trace
from hawq.integer import ops as o
from hawq.qat.model import QuantizedModel
from hawq.qat.transfer import start_from
from hawq.quantizers import QuantOptions
from hawq.quantizers.weight import per_channel
from hawq.schemes import uniform


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


@pytest.mark.parametrize(("group", "scales"), [(1, 12), (2, 6), (4, 3), (12, 1), (0, 1)])
def test_the_channels_of_a_group_share_a_scale(group, scales):
    unit = calibrated("Residual", "uniform8", weight_group=group).unit("conv2")
    codes, scale = unit.quantizer.codes(unit.weight)
    assert scale.unique().numel() == scales
    assert scale.equal(scale.view(scales, -1)[:, :1].expand(-1, 12 // scales).flatten())
    top = codes.flatten(1).abs().amax(1)
    assert top.view(scales, -1).amax(1).tolist() == [127] * scales
    assert bool((top < 127).any()) is (scales < 12)  # with a scale of its own each would fill the codes


@pytest.mark.parametrize(("group", "own"), [(4, True), (0, False)])
def test_groups_leave_pinned_units_their_scales_unless_a_layer_has_one(group, own):
    model = calibrated("Residual", weight_group=group)
    for name, channels in (("stem", 8), ("head", 10)):
        unit = model.unit(name)
        assert unit.quantizer.scale(unit.weight).unique().numel() == (channels if own else 1)


def test_groups_that_do_not_divide_the_channels_are_refused():
    says = r"conv1: 12 output channels do not part into weight groups of 5; allowed are 1, 2, 3, 4, 6, 12, and 0"
    with pytest.raises(UsageError, match=says):
        calibrated("Residual", weight_group=5)
    with pytest.raises(UsageError, match=r"weight group -1: allowed are 1, 2, \.\.\. channels, and 0"):
        QuantOptions(weight_group=-1)


@pytest.mark.parametrize("norm", ["mean", "var", "var-mean"])
def test_weights_are_normalised_but_those_of_pinned_units(norm):
    plain, model = (calibrated("Residual", "uniform4", weight_quantizer="dorefa", weight_norm=n)
                    for n in ("none", norm))  # fmt: skip
    for name in ("conv1", "conv2", "conv3", "down", "stem", "head"):
        one, other = (m.unit(name).codes(m.lower().types["input"]).weight for m in (plain, model))
        assert one.equal(other) is (name in ("stem", "head"))


def test_a_single_weight_has_no_mean_to_take_out():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(4, 2, 3), nn.Flatten(),
                        nn.Linear(2 * 16, 3))  # fmt: skip
    graph = trace(net.eval(), (3, 8, 8))

    def quantized(**options):
        return QuantizedModel(graph, uniform("net", graph, 4), QuantOptions(**options))

    with pytest.raises(UsageError, match="1: weight norm mean takes the mean from a single weight, which leaves 0"):
        quantized(weight_norm="mean")
    for allowed in ({"weight_norm": "var"}, {"weight_norm": "mean", "weight_group": 2}):
        unit = quantized(**allowed).unit("1")
        assert bool((unit.quantizer(unit.weight) != 0).any())


@pytest.mark.parametrize(
    ("quantizer", "bits", "norm"), [("minmax", 4, "none"), ("lsq", 4, "var"), ("ternary", 2, "var-mean")]
)
def test_what_trained_in_groups_is_deployed(quantizer, bits, norm, tmp_path):
    options = {"weight_quantizer": quantizer, "act_quantizer": "lsq", "weight_group": 2, "weight_norm": norm}
    model = fine_tuned("Inverted", bits, **options)
    for name in ("deep", "project", "expand", "grouped"):
        unit = model.unit(name)
        codes, scale = unit.quantizer.codes(unit.weight)
        assert scale[::2].equal(scale[1::2])
        with torch.no_grad():
            assert torch.allclose(unit.quantizer(unit.weight), codes * per_channel(scale, codes), rtol=1e-6)
        factor, _ = unit.affine()
        lowered = unit.codes(model.input_quantizer(model.graph.nodes[name].inputs[0]).tensor_type((1,))).weight
        assert lowered.equal((codes if factor is None else codes * per_channel(factor.sign(), codes)).to(torch.int8))
    check_deployed(model, tmp_path)
    assert simulation_error(model) < 0.02


@pytest.mark.parametrize("option", [{"weight_norm": "var"}, {"weight_group": 2}])
def test_what_was_learned_for_other_rows_is_left_behind(option):
    inner = {"conv1", "conv2", "down", "conv3"}
    old = calibrated("Residual", "uniform4", weight_quantizer="lsq")
    model, left = start_from(old, old.bits, QuantOptions(weight_quantizer="lsq", **option))
    assert set(left) == inner
    assert all(model.unit(name).weight.equal(old.unit(name).weight) for name in old.graph.units)


@pytest.mark.parametrize("bits", [6, 12])
def test_biases_keep_to_their_bits(bits):
    model = calibrated("Branches", "uniform8", bias_bits=bits)
    unclipped = calibrated("Branches", "uniform8")
    unclipped.load_state_dict(model.state_dict())
    program, whole = model.lower(), unclipped.lower()
    limit = 2 ** (bits - 1) - 1
    rounded = 0
    for op in weighted(program):
        bias, free = (p.constants(op)["bias"] for p in (program, whole))
        steps = [next(2**k for k in range(31) if abs(code) <= limit * 2**k) for code in free.tolist()]
        step = torch.tensor(steps, dtype=torch.int32)
        assert (bias % step == 0).all()
        assert (bias // step).abs().max() <= limit
        assert (2 * (bias - free).abs() <= step).all()
        rounded += int((bias != free).sum())
    assert rounded > 0
    left = next(program.constants(op) for op in weighted(program) if op.name == "left")
    unit, source = model.unit("left"), model.input_quantizer("stem")
    bias = unit._fake_bias(unit.bias, None, source)
    codes = bias / (unit.quantizer.scale(unit.weight) * source.step())
    assert codes.allclose(left["bias"].float(), rtol=1e-6)  # training sees them, too


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
