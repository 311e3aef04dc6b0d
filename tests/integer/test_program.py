"""Programs are validated when they are built and when they are read."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import binary_network, logits_of
from strategies import CASES

from hawq.errors import HawqError, UsageError
from hawq.integer import IntegerProgram, ReferenceExecutor, TensorType
from hawq.integer import ops as o
from hawq.integer.validate import validate

IMAGE = TensorType((2, 3, 4), 16, False)
NARROW = dataclasses.replace(IMAGE, bits=4)
MUL = {"multiplier": torch.tensor([2**30], dtype=torch.int32), "shift": torch.tensor([40], dtype=torch.int32)}


def small_program(**changes):
    image, hidden = TensorType((2, 4, 4), 8, True, 0.1), TensorType((3, 4, 4), 4, False, 0.2)
    conv = {"name": "conv", "inputs": ("x",), "out": hidden, "lo": 0, "hi": 15, "stride": (1, 1),
            "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}  # fmt: skip
    ops = (
        o.QuantizeInput(name="x", inputs=(), out=image, lo=-128, hi=127),
        o.Conv2d(**(conv | changes)),
        o.Flatten(name="flat", inputs=("conv",), out=TensorType((48,), 4, False, 0.2)),
        o.Linear(name="y", inputs=("flat",), out=TensorType((5,), 32, True), lo=-(2**31), hi=2**31 - 1),
    )
    g = torch.Generator().manual_seed(0)
    tensors = {
        "conv.weight": torch.randint(-7, 8, (3, 2, 3, 3), generator=g, dtype=torch.int8),
        "conv.bias": torch.randint(-99, 99, (3,), generator=g, dtype=torch.int32),
        "conv.multiplier": torch.full((3,), (1 << 30) + 12345, dtype=torch.int32),
        "conv.shift": torch.full((3,), 36, dtype=torch.int32),
        "y.weight": torch.randint(-127, 128, (5, 48), generator=g, dtype=torch.int8),
        "y.bias": torch.zeros(5, dtype=torch.int32),
    }
    return ops, tensors, logits_of(ops, torch.linspace(0.1, 0.5, 5))


@pytest.fixture
def program():
    return IntegerProgram("tiny", "test", *small_program())


def test_round_trip_keeps_every_field_and_integer(program, tmp_path):
    _assert_survives_a_file(program, tmp_path)


def test_thresholds_and_fill_survive_a_file(tmp_path):
    _assert_survives_a_file(binary_network(), tmp_path)


def _assert_survives_a_file(program, tmp_path):
    program.save(tmp_path / "program.json", note="kept")
    read = IntegerProgram.load(tmp_path / "program.json")
    assert (read.arch, read.scheme, read.ops) == (program.arch, program.scheme, program.ops)
    assert list(read.outputs) == list(program.outputs)
    for name, output in program.outputs.items():
        assert read.outputs[name].tensor == output.tensor
        assert read.outputs[name].scale.tolist() == output.scale.tolist()
    image = torch.randn(2, *program.input.out.shape, generator=torch.Generator().manual_seed(1)) * 5
    for name, codes in ReferenceExecutor(program).trace(image).items():
        assert codes.tolist() == ReferenceExecutor(read).trace(image)[name].tolist()


def test_two_saves_write_the_same_bytes(program, tmp_path):
    program.save(tmp_path / "a.json")
    program.save(tmp_path / "b.json")
    for suffix in (".json", ".safetensors"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


# These need more than an image in front of them: small_program, binary_network and the whole networks hold them.
_NOT_BEHIND = (o.Linear, o.Add, o.Mul, o.Table, o.Concat, o.Limit, o.Threshold)
_BEHIND_AN_IMAGE = [kind for kind in CASES if kind not in _NOT_BEHIND]


@pytest.mark.parametrize("kind", _BEHIND_AN_IMAGE, ids=lambda kind: kind.__name__)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_kind_of_op_survives_a_file(kind, data, tmp_path_factory):
    op, _, types, constants = data.draw(CASES[kind])
    inputs = [
        o.QuantizeInput(name=f"in{i}", inputs=(), out=t, lo=t.range[0], hi=t.range[1]) for i, t in enumerate(types)
    ]
    op = dataclasses.replace(op, inputs=tuple(i.name for i in inputs))
    last = o.Requantize(name="last", inputs=("op",), out=TensorType(op.out.shape, 8, False), lo=0, hi=255)
    tensors = {f"op.{name}": tensor for name, tensor in constants.items()}
    tensors |= {f"last.{name}": tensor for name, tensor in MUL.items()}
    path = tmp_path_factory.mktemp("op") / "p.json"
    program = IntegerProgram("a", "s", (*inputs, op, last), tensors, logits_of([last], torch.ones(1)))
    program.save(path)
    assert IntegerProgram.load(path).ops == program.ops


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"inputs": ("nowhere",)}, "reads .'nowhere'. before"),
        ({"name": "x"}, "used twice"),
        ({"hi": 16}, "clamp 0..16 is outside its codes 0..15"),
        ({"groups": 2}, "do not fit 2 channels"),
        ({"padding": (0, 0, 0, 0)}, "output map has shape"),
        ({"fill": 128}, "pads with x - zx = 128, allowed by its input's codes are -128..127"),
    ],
)
def test_a_broken_op_is_named(changes, problem):
    with pytest.raises(HawqError, match=problem):
        IntegerProgram("tiny", "test", *small_program(**changes))


@pytest.mark.parametrize(
    ("constant", "tensor", "problem"),
    [
        ("conv.weight", torch.zeros(3, 2, 3, 3), "weight is torch.float32"),
        ("conv.shift", torch.zeros(3, dtype=torch.int32), "shifts 0..0 are outside 1..62"),
        ("conv.multiplier", torch.ones(3, dtype=torch.int32), "below 2\\^30"),
        ("conv.bias", None, "'bias' is missing"),
        ("stray", torch.zeros(1), "no op owns"),
    ],
)
def test_a_broken_constant_is_named(constant, tensor, problem):
    ops, tensors, scale = small_program()
    tensors = {k: v for k, v in tensors.items() if k != constant} | ({} if tensor is None else {constant: tensor})
    with pytest.raises(HawqError, match=problem):
        validate(ops, tensors, scale)


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        ({}, "program: returns nothing"),
        (
            {"logits": o.Output("nowhere", torch.ones(1))},
            "output 'logits': is the tensor 'nowhere', which no op produces",
        ),
        ({"logits": o.Output("y", torch.ones(4))}, r"torch.float32 \(4,\), expected float32 \(5,\) or \(1,\)"),
        ({"map": o.Output("conv", torch.ones(3, dtype=torch.float64))}, r"'map': has the scale torch.float64 \(3,\)"),
    ],
)
def test_a_broken_output_is_named(outputs, problem):
    ops, tensors, _ = small_program()
    with pytest.raises(HawqError, match=problem):
        validate(ops, tensors, outputs)


def test_outputs_have_zero_point_0():
    ops, tensors, _ = small_program(out=TensorType((3, 4, 4), 4, False, 0.2, 3))
    with pytest.raises(HawqError, match="output 'map': has zero point 3, allowed is 0"):
        validate(ops[:2], {k: v for k, v in tensors.items() if k[0] == "c"}, {"map": o.Output("conv", torch.ones(1))})


@pytest.mark.parametrize(
    ("constant", "tensor", "problem"),
    [
        ("threshold", [[0, 2, 1]] * 3, "decrease"),
        ("threshold", [[0, 1, 2]] * 2, r"shape \(2, 3\), expected \(3, 3\) or \(1, 3\)"),
        ("threshold", [0, 1, 2], r"shape \(3,\)"),
        ("threshold", [[0, 1]] * 3, r"shape \(3, 2\)"),
        ("level", [0, 1, 1, 3], "do not increase"),
        ("level", [-1, 0, 1, 3], "levels -1..3 are outside its codes 0..3"),
        ("level", [0, 1, 2, 4], "levels 0..4 are outside"),
        ("level", [0], "allowed are 2..256 levels"),
        ("level", list(range(257)), "allowed are 2..256 levels"),
    ],
)
def test_a_broken_threshold_is_named(constant, tensor, problem):
    program = binary_network()
    tensors = {**program.tensors, f"steps.{constant}": torch.tensor(tensor, dtype=torch.int32)}
    with pytest.raises(HawqError, match=f"op 'steps' .Threshold.: .*{problem}"):
        dataclasses.replace(program, tensors=tensors)


@pytest.mark.parametrize(
    ("kind", "inputs", "constants", "problem"),
    [
        (o.Mul, ("wide", "wide"), MUL, "factors have 16 and 16 bits, allowed are at most 16 and 8"),
        (
            o.Mul,
            ("wide", "pooled"),
            MUL,
            r"second factor has shape \(2, 1, 4\), allowed are \(\(2, 3, 4\), ",
        ),
        (o.Table, ("wide",), {"table": torch.zeros(16, dtype=torch.int32)}, "looks up codes of 16 bits"),
        (o.Table, ("x",), {"table": torch.zeros(8, dtype=torch.int32)}, r"table has shape \(8,\), expected \(16,\)"),
        (o.Table, ("x",), {"table": torch.arange(1, 17).int()}, r"entries 1\.\.16 are outside its codes 0\.\.15"),
    ],
)
def test_broken_products_and_tables_are_named(kind, inputs, constants, problem):
    """The first op gives 4-bit codes x; `wide` are 16-bit ones of the same shape, `pooled` fewer of them."""
    again = {f"wide.{name}": tensor for name, tensor in MUL.items()}
    ops = [
        o.QuantizeInput(name="x", inputs=(), out=NARROW, lo=0, hi=15),
        o.Requantize(name="wide", inputs=("x",), out=IMAGE, lo=0, hi=65535),
        o.MaxPool2d(name="pooled", inputs=("x",), out=dataclasses.replace(NARROW, shape=(2, 1, 4)), kernel=(3, 1),
                    stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1)),
        kind(name="op", inputs=inputs, out=NARROW, **({"lo": 0, "hi": 15} if kind is o.Mul else {})),
    ]  # fmt: skip
    tensors = again | {f"op.{name}": tensor for name, tensor in constants.items()}
    with pytest.raises(HawqError, match=f"op 'op' .{kind.__name__}.: {problem}"):
        validate(ops, tensors, logits_of(ops, torch.ones(1)))


def _integers(*values):
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize(
    ("changes", "part_bits", "problem"),
    [
        ({"row": _integers(0, 3)}, 11, r"a row is outside 0\.\.2"),
        ({"column": _integers(0, 1)}, 11, r"column has shape \(2,\), expected \(1,\)"),
        ({"row_part": _integers(0, 2049)}, 11, r"a row_part is outside 0\.\.2048"),
        ({"row_part": _integers(0)}, 11, r"row_part has shape \(1,\), expected \(2,\)"),
        ({}, 12, r"has weights of 12 bits, allowed are 0\.\.11 for its input"),
    ],
)
def test_a_broken_resizing_is_named(changes, part_bits, problem):
    constants = {"row": _integers(0, 1), "row_part": _integers(0, 9), "column": _integers(3),
                 "column_part": _integers(0), **MUL, **changes}  # fmt: skip
    ops = [
        o.QuantizeInput(name="x", inputs=(), out=NARROW, lo=0, hi=15),
        o.Bilinear(name="op", inputs=("x",), out=dataclasses.replace(NARROW, shape=(2, 2, 1)), lo=0, hi=15,
                   part_bits=part_bits),
    ]  # fmt: skip
    with pytest.raises(HawqError, match=f"op 'op' .Bilinear.: {problem}"):
        validate(ops, {f"op.{name}": tensor for name, tensor in constants.items()}, logits_of(ops, torch.ones(1)))


def test_only_convolutions_and_linear_layers_make_accumulators():
    program = binary_network()
    ops = [dataclasses.replace(op, out=TensorType(op.out.shape, 32, True)) if op.name == "steps" else op
           for op in program.ops]  # fmt: skip
    with pytest.raises(HawqError, match=r"'steps' .Threshold.: its output has 32 bits, allowed are 1..8 and 16"):
        dataclasses.replace(program, ops=tuple(ops))


def test_codes_are_made_of_accumulators_before_a_layer_reads_them():
    program = binary_network()
    ops = [dataclasses.replace(op, inputs=("flat",)) if op.name == "logits" else op for op in program.ops]
    flat = o.Flatten(name="flat", inputs=("middle",), out=TensorType((24,), 32, True))
    ops = (*(op for op in ops if op.name not in ("steps", "flat", "logits")), flat, ops[-1])
    tensors = {name: tensor for name, tensor in program.tensors.items() if not name.startswith("steps.")}
    with pytest.raises(HawqError, match=r"'logits' .Linear.: reads accumulators; requantize or threshold them first"):
        dataclasses.replace(program, ops=ops, tensors=tensors)


def test_torn_and_missing_files_are_refused(program, tmp_path):
    path = tmp_path / "program.json"
    with pytest.raises(UsageError, match="does not exist"):
        IntegerProgram.load(path)
    program.save(path)
    whole = path.with_suffix(".safetensors").read_bytes()
    path.with_suffix(".safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HawqError, match="cut off"):
        IntegerProgram.load(path)
    path.with_suffix(".safetensors").write_bytes(whole)
    document = json.loads(path.read_text())
    document["ops"][1]["kind"] = "Transformer"
    path.write_text(json.dumps(document))
    with pytest.raises(HawqError, match="unknown op kind 'Transformer'"):
        IntegerProgram.load(path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(HawqError, match="not valid JSON"):
        IntegerProgram.load(path)
