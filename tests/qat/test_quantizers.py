"""Every quantizer, on whole networks: what trains is what is deployed."""

import pytest
import torch
import torch.nn.functional as F
from deployed import check_deployed, interpolation_slack
from networks import NETWORKS, SIZE, build, images

from hawq.bitconfig import BitConfig, UnitBits, UnitQuantizers
from hawq.graph import ir
from hawq.graph.trace import trace
from hawq.integer import ReferenceExecutor
from hawq.integer.arithmetic import code_range
from hawq.integer.ops import Bilinear, Threshold
from hawq.qat.checkpoint import describe, restore
from hawq.qat.model import QuantizedModel
from hawq.qat.plan import QuantOptions
from hawq.quantizers import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS, activation_quantizer, weight_quantizer
from hawq.quantizers.threshold import ThresholdActivation
from hawq.schemes import uniform

NAMES = sorted({*WEIGHT_QUANTIZERS, *ACTIVATION_QUANTIZERS})
CASES = [(net, name) for net in NETWORKS for name in NAMES]


def named(name):
    """Return the quantizers of weights and of activations of a method; the ones it lacks are the default."""
    return tuple(name if name in known else "minmax" for known in (WEIGHT_QUANTIZERS, ACTIVATION_QUANTIZERS))


UNREACHED = {("Gated", "pact"): ["stored.mean.clip"]}
"""At two bits all that reads this tensor is clipped itself, and a clipped value has no gradient."""


def narrowest(name):
    """Return the fewest bits, two if it can be, that weights and activations of a method both have."""
    weight, activation = named(name)
    shared = set(weight_quantizer(weight).widths) & set(activation_quantizer(activation).widths)
    return 2 if 2 in shared else min(shared)


def quantized(net, name, **options):
    graph = trace(build(net), (3, SIZE, SIZE))
    weight, activation = named(name)
    chosen = QuantOptions(weight_quantizer=weight, act_quantizer=activation, **options)
    model = QuantizedModel(graph, uniform("net", graph, narrowest(name)), chosen)
    model.calibrate([images(8, seed) for seed in (1, 2)])
    return model


def step(model, lr=0.01):
    """Take one optimisation step; return the names of parameters that it did not reach."""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=lr)
    F.cross_entropy(model(images(32)), torch.arange(32) % 10).backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    optimizer.step()
    model.eval()
    return dead


@pytest.mark.parametrize(("net", "name"), CASES)
def test_a_step_reaches_every_parameter_and_evaluation_equals_the_program(net, name):
    model = quantized(net, name)
    before = model.lower()
    assert step(model) == UNREACHED.get((net, name), [])
    program, image = model.lower(), images(8, seed=7)
    assert any(not tensor.equal(before.tensors[key]) for key, tensor in program.tensors.items())
    expected, found = model.evaluator().trace(image), ReferenceExecutor(program).trace(image)
    assert all(codes.equal(found[tensor]) for tensor, codes in expected.items())
    logits = model(image)
    assert logits.equal(ReferenceExecutor(program).logits(image))
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize(("net", "name"), CASES)
def test_each_training_op_lands_on_the_code_of_its_integer_op(net, name):
    """Feed every float op the program's own codes: what it computes must have the program's code.

    Values may miss it by float32 sums' relative error, by interpolation weights' rounding and, where a requantization
    follows, by half a step of the accumulator, to which biases are rounded. So codes must be those of some such value.
    """
    model = quantized(net, name)
    step(model)
    program = model.lower()
    codes = ReferenceExecutor(program).trace(images(4, seed=7))
    types = program.types
    real = {tensor: (codes[tensor] - kind.zero_point).float() * kind.scale for tensor, kind in types.items()}
    kinds = set()
    for node in model.graph.nodes.values():
        quantizer = model.stored_quantizer(node.name)
        if quantizer is None or isinstance(node.op, ir.Input):
            continue
        ops = {op.name: op for op in program.ops}
        op = ops[f"{node.name}.acc"] if f"{node.name}.acc" in ops else ops[node.name]
        values = {source: real[actual] for source, actual in zip(node.inputs, op.inputs, strict=True)}
        with torch.no_grad():
            value = model.compute(node, images(4), values, dict(values))
        if model.plan.domains[node.name].root != node.name and not quantizer.uniform:
            assert isinstance(node.op, ir.MaxPool2d | ir.Flatten | ir.Resize), node.name  # codes move as they are
            assert value.equal(codes[node.name] * quantizer.step()), node.name
            continue
        slack = 2e-6 * float(value.abs().max())
        if isinstance(node.op, ir.Conv2d | ir.Linear | ir.Norm) and quantizer.uniform:
            scales = model.unit(node.name).codes(types[op.inputs[0]]).accumulator_scale
            slack += 0.5 * float(scales.max())
        if isinstance(op, Bilinear):
            slack += interpolation_slack(op, real[op.inputs[0]])
        assert_codes(quantizer, value, slack, codes[node.name], node.name)
        kinds.add(quantizer.uniform)
    assert True in kinds
    if (
        not activation_quantizer(named(name)[1]).uniform and net != "Dense"
    ):  # there batch norms read every tensor from a stream
        assert False in kinds


def assert_codes(quantizer, value, slack, found, where):
    """Check that codes are those of values within `slack` of the given ones, a number or a tensor of their shape."""
    if isinstance(quantizer, ThresholdActivation):
        levels = quantizer.levels()
        low, high = (
            levels.codes[torch.bucketize(value.double() + d, levels.thresholds, right=True)] for d in (-slack, slack)
        )
        assert bool(((low <= found) & (found <= high)).all()), where
        assert bool((low == high).float().mean() > 0.999), where  # hardly any value is that close to a threshold
        return
    scale, zero_point = quantizer.scale_and_zero_point()
    steps = (value / scale + zero_point).clamp(*code_range(quantizer.bits, quantizer.grid.signed))
    allowed = 0.51 + 2e-6 * 2**quantizer.bits + slack / float(scale)
    assert bool(((steps - found).detach().abs() <= allowed).all()), where


@pytest.mark.parametrize(("net", "name"), CASES)
def test_streams_and_joins_are_read_as_their_simulation_reads_them(net, name):
    """A tensor kept in 16 bits passes one more quantizer: from equal codes both must find the same."""
    model = quantized(net, name)
    step(model)
    program = model.lower()
    codes, types = ReferenceExecutor(program).trace(images(4, seed=7)), program.types
    reads = {op.name: op.inputs[0] for op in program.ops if op.name.endswith(".read")}
    for read, source in reads.items():
        kind, quantizer = types[source], model.input_quantizer(source)
        value = (codes[source] - kind.zero_point).float() * kind.scale
        slack = 1e-6 * value.abs()  # the product is rounded to float32
        assert_codes(quantizer, value, slack, codes[read], read)
    assert reads or net != "Residual"


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_gives_the_same_program(name, tmp_path):
    model = quantized("Residual", name)
    step(model)
    path = tmp_path / "checkpoint.pt"
    torch.save(describe(model), path)
    again = restore(torch.load(path, weights_only=True), model.graph)
    for index, program in enumerate((model.lower(), again.lower())):
        program.save(tmp_path / str(index) / "program.json")
    for file in ("program.json", "program.safetensors"):
        assert (tmp_path / "0" / file).read_bytes() == (tmp_path / "1" / file).read_bytes()


@pytest.mark.parametrize(("name", "net"), [(name, list(NETWORKS)[i % 4]) for i, name in enumerate(NAMES)])
def test_the_compiled_network_gives_every_integer(name, net, tmp_path):
    model = quantized(net, name)
    step(model)
    check_deployed(model, tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("option", [
    {"weight_group": 0}, {"weight_group": 2}, {"weight_norm": "mean"}, {"weight_norm": "var-mean", "weight_group": 2},
    {"asymmetric": True}, {"pad_after_quant": True},
])  # fmt: skip
def test_options_lower_as_well(name, option):
    model, image = quantized("Inverted", name, **option), images(4, seed=7)
    step(model)
    assert model(image).equal(ReferenceExecutor(model.lower()).logits(image))


@pytest.mark.parametrize("name", [n for n in ACTIVATION_QUANTIZERS if not activation_quantizer(n).uniform])
def test_a_unit_may_have_a_method_of_its_own(name):
    graph = trace(build("Branches"), (3, SIZE, SIZE))
    whole, unit, width = uniform("net", graph, 8), "right2", narrowest(name)
    bits = {**whole.units, unit: UnitBits(width, width)}
    model = QuantizedModel(graph, BitConfig("net", "own", bits, {unit: UnitQuantizers(name, name)}))
    model.calibrate([images(8)])
    assert type(model.unit(unit).quantizer) is weight_quantizer(name)
    assert type(model.input_quantizer("right1")) is activation_quantizer(name)
    assert type(model.unit("right1").quantizer) is weight_quantizer("minmax")
    program = model.eval().lower()
    assert [op.name for op in program.ops if isinstance(op, Threshold)] == ["right1"]
    assert model(images(2)).equal(ReferenceExecutor(program).logits(images(2)))
