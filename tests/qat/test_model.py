"""Training simulates what is deployed; evaluation is what is deployed."""

import pytest
import torch
import torch.nn.functional as F
from deployed import interpolation_slack
from networks import NETWORKS, SIZE, build, images
from schemes import SCHEMES, calibrated

from hawq.bitconfig import BitConfig, UnitBits
from hawq.errors import HawqError
from hawq.graph import ir
from hawq.graph.trace import trace
from hawq.integer import IntegerProgram, ReferenceExecutor, certify
from hawq.integer import ops as o
from hawq.integer.arithmetic import code_range
from hawq.qat.model import QuantizedModel
from hawq.qat.plan import QuantOptions
from hawq.quantizers import ActivationQuantizer
from hawq.schemes import uniform

CASES = [(n, s, a) for n in NETWORKS for s in SCHEMES for a in (False, True)]


@pytest.mark.parametrize(("name", "scheme", "asymmetric"), CASES)
def test_evaluation_gives_the_codes_of_the_saved_program(name, scheme, asymmetric, tmp_path):
    model = calibrated(name, scheme, asymmetric=asymmetric)
    model.lower().save(tmp_path / "program.json")
    program = IntegerProgram.load(tmp_path / "program.json")
    image = images(4, seed=7)
    expected, found = model.evaluator().trace(image), ReferenceExecutor(program).trace(image)
    assert list(expected) == list(found)
    for tensor, codes in expected.items():
        assert codes.equal(found[tensor]), tensor
    assert model(image).equal(ReferenceExecutor(program).logits(image))


@pytest.mark.parametrize(("name", "scheme", "asymmetric"), CASES)
def test_each_training_op_lands_on_the_code_of_its_integer_op(name, scheme, asymmetric):
    """Feed every float op the program's own codes: what it computes must round to the program's code.

    Three things may move a value off its code by more than half a step: a unit's bias is rounded to a step of the
    accumulator, weights of an interpolation are rounded to 2^-part_bits (arithmetic.fixed_positions says what it does),
    and float32 sums and ratios carry a relative error, which counts in 16-bit codes.
    """
    model = calibrated(name, scheme, asymmetric=asymmetric)
    program = model.lower()
    codes = ReferenceExecutor(program).trace(images(4, seed=7))
    real = {name: (codes[name] - kind.zero_point).float() * kind.scale for name, kind in program.types.items()}
    checked = 0
    for node in model.graph.nodes.values():
        quantizer = model.stored_quantizer(node.name)
        if quantizer is None or isinstance(node.op, ir.Input):
            continue
        op = next(op for op in program.ops if op.name == node.name)
        values = {source: real[actual] for source, actual in zip(node.inputs, op.inputs, strict=True)}
        with torch.no_grad():
            value = model.compute(node, images(4), values, dict(values))
        scale, zero_point = quantizer.scale_and_zero_point()
        steps = (value / scale + zero_point).clamp(*code_range(quantizer.bits, quantizer.grid.signed))
        distance = (steps - codes[node.name]).abs().max()
        allowed = 0.5 + 2e-6 * 2**quantizer.bits + 0.01
        if isinstance(node.op, ir.Conv2d | ir.Linear | ir.Norm):
            accumulator_scale = model.unit(node.name).codes(program.types[op.inputs[0]]).accumulator_scale
            allowed += 0.5 * float(accumulator_scale.max()) / op.out.scale
        if isinstance(op, o.Bilinear):
            allowed += interpolation_slack(op, real[op.inputs[0]]) / op.out.scale
        assert float(distance) <= allowed, node.name
        checked += 1
    assert checked >= 6


@pytest.mark.parametrize("name", NETWORKS)
def test_eight_bits_stay_close_to_the_float_network(name):
    model, image = calibrated(name), images(32, seed=9)
    expected = build(name)(image)
    error = (model(image) - expected).detach().pow(2).mean() / expected.var()
    assert float(error.detach()) < 0.02  # random networks; a wrong scale or a lost bias gives errors near 1


@pytest.mark.parametrize("name", NETWORKS)
def test_streams_keep_16_bits_and_pins_8(name):
    program = calibrated(name, "uniform4").lower()
    by_name = program.types
    adds = [op for op in program.ops if isinstance(op, o.Add)]
    assert all(by_name[source].bits == 16 for op in adds for source in (op.name, *op.inputs))
    weighted = [op for op in program.ops if isinstance(op, o.Conv2d | o.Linear)]
    assert by_name[program.input.name].bits == 8
    last = weighted[-1]
    assert by_name[last.inputs[0]].bits == 8
    assert certify(program).bounds


@pytest.mark.parametrize("fix_bn", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_reaches_every_parameter(name, fix_bn):
    model = calibrated(name, "uniform4", fix_bn=fix_bn).train()
    before = model.evaluator().program.output.scale.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loss = F.cross_entropy(model(images(16)), torch.arange(16) % 10)
    loss.backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    if not fix_bn:  # the batch's mean takes a convolution's bias out again
        dead = [n for n in dead if not n.endswith(".bias") or ".norm." in n]
    assert dead == []
    optimizer.step()
    assert not model.eval().evaluator().program.output.scale.equal(before)


def test_batch_statistics_and_folding_quantize_the_same_weights():
    model = calibrated("Residual", "uniform4")
    unit = model.unit("conv1")
    value, source = torch.randn(4, 8, 8, 8, generator=torch.Generator().manual_seed(0)), model.input_quantizer("stem")
    plain = unit._multiply(value, unit.quantizer(unit.weight), None, source)
    state = unit.norm.state
    normal = torch.nn.functional.batch_norm(
        plain, state.mean, state.var, state.weight, state.bias, False, 0.0, state.eps
    )
    assert torch.allclose(unit(value, source, fix_bn=True), normal.relu(), atol=1e-5)  # float32 sums in another order


def test_calibration_changes_ranges_only():
    graph = trace(build("Residual"), (3, SIZE, SIZE))
    model = QuantizedModel(graph, uniform("net", graph, 8), QuantOptions(fix_bn=False, act_range_momentum=0.5))
    before = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("units")}
    model.calibrate([images(4)])
    assert all(v.equal(before[k]) for k, v in model.state_dict().items() if k.startswith("units"))
    assert not any(module.calibrating for module in model.modules() if isinstance(module, ActivationQuantizer))


def test_evaluation_before_calibration_is_an_error():
    graph = trace(build("Residual"), (3, SIZE, SIZE))
    with pytest.raises(HawqError, match="calibrate or train"):
        QuantizedModel(graph, uniform("net", graph, 8)).eval()(images(1))


def test_nan_weights_are_named():
    model = calibrated("Residual")
    model.unit("conv2").weight.data[0, 0] = float("nan")
    with pytest.raises(HawqError, match="conv2: its weights or bias hold NaN"):
        model.lower()


def test_a_config_that_does_not_fit_is_refused():
    graph = trace(build("Residual"), (3, SIZE, SIZE))
    whole = dict(uniform("net", graph, 8).units)
    with pytest.raises(HawqError, match="'conv3'"):
        QuantizedModel(graph, BitConfig("net", "s", {k: v for k, v in whole.items() if k != "conv3"}))
    with pytest.raises(HawqError, match="need the same activation bits"):
        QuantizedModel(graph, BitConfig("net", "s", whole | {"conv1": UnitBits(4, 4)}))
