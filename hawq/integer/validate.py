"""Check that ops and constants form a program the integer semantics defines."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from hawq.errors import HawqError
from hawq.integer import ops as o
from hawq.integer.arithmetic import part_bits
from hawq.integer.geometry import pooled_size

__all__ = ["validate"]

_DTYPES = {
    "weight": torch.int8, "bias": torch.int32, "shift": torch.int32, "multiplier": torch.int32,
    "threshold": torch.int32, "level": torch.int32, "limit": torch.int32, "table": torch.int32,
    "row": torch.int32, "row_part": torch.int32, "column": torch.int32, "column_part": torch.int32,
}  # fmt: skip
_PIXEL_DTYPES = {"multiplier": torch.int64, "offset": torch.int64, "shift": torch.int32}

_GIVE_ACCUMULATORS = (o.Conv2d, o.Linear, o.MaxPool2d, o.Concat, o.Nearest, o.Flatten)
"""Ops that make accumulators or move them; every other op's output is codes."""

_MOST_LEVELS = 256

_OpT = TypeVar("_OpT", bound=o.Op)
_Rule = Callable[[_OpT, Sequence[o.TensorType], Mapping[str, Tensor]], None]
_RULES: dict[type[o.Op], _Rule[o.Op]] = {}


def validate(ops: Sequence[o.Op], tensors: Mapping[str, Tensor], outputs: Mapping[str, o.Output]) -> None:
    """Check a program.

    Args:
        ops: in execution order.
        tensors: constants by `<op name>.<constant>`.
        outputs: what the program returns, by name.

    Raises:
        HawqError: a rule is broken; the message names the op and the rule.
    """
    if not ops or not isinstance(ops[0], o.QuantizeInput | o.PixelInput):
        raise HawqError("an integer program starts with QuantizeInput or PixelInput")
    types: dict[str, o.TensorType] = {}
    expected: set[str] = set()
    for position, op in enumerate(ops):
        where = f"op {op.name!r} ({type(op).__name__})"
        _require(op.name not in types, where, "its name is used twice")
        _require(position == 0 or bool(op.inputs), where, "only the first op may be an input")
        missing = [name for name in op.inputs if name not in types]
        _require(not missing, where, f"reads {missing} before they are produced")
        _require(op.arity is None or len(op.inputs) == op.arity, where, f"has {len(op.inputs)} inputs, not {op.arity}")
        codes = isinstance(op, _GIVE_ACCUMULATORS) or not op.accumulates
        _require(codes, where, f"its output has {op.out.bits} bits, allowed are 1..8 and {o.STREAM_BITS}")
        constants = _constants(op, tensors, where)
        expected.update(f"{op.name}.{constant}" for constant in constants)
        if isinstance(op, o._Clamped):
            lo, hi = op.out.range
            _require(lo <= op.lo <= op.hi <= hi, where, f"clamp {op.lo}..{op.hi} is outside its codes {lo}..{hi}")
        try:
            _RULES[type(op)](op, [types[name] for name in op.inputs], constants)
        except HawqError as error:
            raise HawqError(f"{where}: {error}") from None
        types[op.name] = op.out
    stray = sorted(set(tensors) - expected)
    _require(not stray, "program", f"holds tensors no op owns: {stray[:5]}")
    _require(bool(outputs), "program", "returns nothing: it needs an output")
    for name, output in outputs.items():
        _check_output(f"output {name!r}", output, types)


def _check_output(where: str, output: o.Output, types: Mapping[str, o.TensorType]) -> None:
    _require(output.tensor in types, where, f"is the tensor {output.tensor!r}, which no op produces")
    kind, scale = types[output.tensor], output.scale
    _require(kind.zero_point == 0, where, f"has zero point {kind.zero_point}, allowed is 0")
    channels, given = kind.shape[0], f"{scale.dtype} {tuple(scale.shape)}"
    right = scale.dtype == torch.float32 and scale.shape in {(channels,), (1,)}
    _require(right, where, f"has the scale {given}, expected float32 ({channels},) or (1,)")


def _require(condition: bool, where: str, problem: str) -> None:
    if not condition:
        raise HawqError(f"{where}: {problem}")


def _constants(op: o.Op, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    dtypes = _PIXEL_DTYPES if isinstance(op, o.PixelInput) else _DTYPES
    found = {}
    for constant in op.constants:
        if op.accumulates and constant in ("multiplier", "shift"):
            continue
        tensor = tensors.get(f"{op.name}.{constant}")
        if tensor is None:
            raise HawqError(f"{where}: its constant {constant!r} is missing")
        _require(tensor.dtype == dtypes[constant], where, f"{constant} is {tensor.dtype}, expected {dtypes[constant]}")
        found[constant] = tensor
    if "shift" in found:
        low, high = int(found["shift"].min()), int(found["shift"].max())
        _require(low >= 1 and high <= 62, where, f"shifts {low}..{high} are outside 1..62")
    return found


def _rule(kind: type[_OpT]) -> Callable[[_Rule[_OpT]], _Rule[_OpT]]:
    def register(rule: _Rule[_OpT]) -> _Rule[_OpT]:
        _RULES[kind] = rule  # type: ignore[assignment]  # the key guarantees the argument's type
        return rule

    return register


def _check(condition: bool, problem: str) -> None:
    if not condition:
        raise HawqError(problem)


def _check_shape(found: tuple[int, ...], expected: tuple[int, ...], what: str) -> None:
    _check(tuple(found) == tuple(expected), f"{what} has shape {tuple(found)}, expected {tuple(expected)}")


def _check_dyadic(constants: Mapping[str, Tensor], shape: tuple[int, ...]) -> None:
    for name in ("multiplier", "shift"):
        _check_shape(tuple(constants[name].shape), shape, name)
    _check(bool((constants["multiplier"] >= 1 << 30).all()), "a multiplier is below 2^30")


@_rule(o.QuantizeInput)
def _quantize_input(op: o.QuantizeInput, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    _check(len(op.out.shape) == 3, f"the image has shape {op.out.shape}, expected (C, H, W)")


@_rule(o.PixelInput)
def _pixel_input(op: o.PixelInput, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    _check(len(op.out.shape) == 3, f"the image has shape {op.out.shape}, expected (C, H, W)")
    for name in ("multiplier", "offset"):
        _check_shape(tuple(constants[name].shape), (op.out.shape[0],), name)
    _check_shape(tuple(constants["shift"].shape), (1,), "shift")


def _check_accumulation(op: o.Op, source: o.TensorType, outputs: int, constants: Mapping[str, Tensor]) -> None:
    _check(source.bits <= o.STREAM_BITS, "reads accumulators; requantize or threshold them first")
    _check_shape(tuple(constants["bias"].shape), (outputs,), "bias")
    _check(op.out.shape[0] == outputs, f"has {outputs} rows of weights for {op.out.shape[0]} channels")
    if not op.accumulates:
        _check_dyadic(constants, (outputs,))


@_rule(o.Conv2d)
def _conv2d(op: o.Conv2d, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    (source,), weight = inputs, constants["weight"]
    _check(len(source.shape) == 3 and weight.dim() == 4, "convolves an image (C, H, W) with weights (O, I, KH, KW)")
    outputs, per_group, kh, kw = weight.shape
    _check(source.shape[0] == per_group * op.groups and outputs % op.groups == 0,
           f"weights {tuple(weight.shape)} with groups {op.groups} do not fit {source.shape[0]} channels")  # fmt: skip
    size = pooled_size(source.shape[1:], (kh, kw), op.stride, op.padding, op.dilation)
    _check_shape(op.out.shape[1:], size, "output map")
    lo, hi = (code - source.zero_point for code in source.range)
    _check(lo <= op.fill <= hi, f"pads with x - zx = {op.fill}, allowed by its input's codes are {lo}..{hi}")
    _check_accumulation(op, source, outputs, constants)


@_rule(o.Linear)
def _linear(op: o.Linear, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    (source,), weight = inputs, constants["weight"]
    _check_shape(tuple(weight.shape), (op.out.shape[0], *source.shape), "weight")
    _check_accumulation(op, source, weight.shape[0], constants)


@_rule(o.Requantize)
def _requantize(op: o.Requantize, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    _check_shape(op.out.shape, inputs[0].shape, "output")
    _check_dyadic(constants, (1,))


@_rule(o.Threshold)
def _threshold(op: o.Threshold, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    threshold, level = constants["threshold"], constants["level"]
    _check_shape(op.out.shape, inputs[0].shape, "output")
    _check(level.dim() == 1 and 2 <= len(level) <= _MOST_LEVELS,
           f"level has shape {tuple(level.shape)}, allowed are 2..{_MOST_LEVELS} levels in one dimension")  # fmt: skip
    allowed = [(channels, len(level) - 1) for channels in (op.out.shape[0], 1)]
    _check(tuple(threshold.shape) in allowed,
           f"threshold has shape {tuple(threshold.shape)}, expected {allowed[0]} or {allowed[1]}")  # fmt: skip
    _check(bool((threshold[:, 1:] >= threshold[:, :-1]).all()), "thresholds of a channel decrease; sort them")
    _check(bool((level[1:] > level[:-1]).all()), f"levels {level.tolist()} do not increase strictly")
    (lo, hi), ends = op.out.range, (int(level[0]), int(level[-1]))
    _check(lo <= ends[0] and ends[1] <= hi, f"levels {ends[0]}..{ends[1]} are outside its codes {lo}..{hi}")


@_rule(o.Add)
def _add(op: o.Add, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    for source in inputs:
        _check_shape(source.shape, op.out.shape, "input")
        _check(source.bits <= o.STREAM_BITS, "adds accumulators; requantize them to 16 bits first")
    _check_shape(tuple(constants["multiplier"].shape), (2,), "multiplier")
    _check_shape(tuple(constants["shift"].shape), (1,), "shift")
    _check(bool((constants["multiplier"] >= 0).all()), "a multiplier is negative")


@_rule(o.Mul)
def _mul(op: o.Mul, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    first, second = inputs
    _check_shape(first.shape, op.out.shape, "first factor")
    channels = first.shape[0]
    allowed = (first.shape, (channels, 1, 1), (channels,))
    _check(second.shape in allowed, f"second factor has shape {second.shape}, allowed are {allowed}")
    widths = f"factors have {first.bits} and {second.bits} bits"
    _check(first.bits <= o.STREAM_BITS and second.bits <= o.NARROW_BITS,
           f"{widths}, allowed are at most {o.STREAM_BITS} and {o.NARROW_BITS}")  # fmt: skip
    _check_dyadic(constants, (1,))


@_rule(o.Table)
def _table(op: o.Table, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    (source,), table = inputs, constants["table"]
    _check_shape(op.out.shape, source.shape, "output")
    _check(source.bits <= o.NARROW_BITS, f"looks up codes of {source.bits} bits, allowed are at most {o.NARROW_BITS}")
    _check_shape(tuple(table.shape), (1 << source.bits,), "table")
    (lo, hi), (low, high) = op.out.range, table.aminmax()
    _check(lo <= int(low) and int(high) <= hi, f"entries {int(low)}..{int(high)} are outside its codes {lo}..{hi}")


def _check_same_codes(source: o.TensorType, out: o.TensorType) -> None:
    same = (source.bits, source.signed, source.scale, source.zero_point) == (
        out.bits, out.signed, out.scale, out.zero_point)  # fmt: skip
    _check(same, f"moves codes between different types: {source} -> {out}")


@_rule(o.Concat)
def _concat(op: o.Concat, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    _check(len(inputs) > 0, "concatenates nothing")
    for source in inputs:
        _check_same_codes(source, op.out)
        _check_shape(source.shape[1:], op.out.shape[1:], "input map")
    _check(sum(source.shape[0] for source in inputs) == op.out.shape[0], "channels do not add up")


@_rule(o.Limit)
def _limit(op: o.Limit, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    _check_same_codes(inputs[0], op.out)
    _check_shape(op.out.shape, inputs[0].shape, "output")
    limit, (lo, hi) = constants["limit"], op.out.range
    _check_shape(tuple(limit.shape), op.out.shape[:1], "limit")
    _check(bool(((limit >= lo) & (limit <= hi)).all()), f"a limit is outside its codes {lo}..{hi}")


@_rule(o.MaxPool2d)
def _max_pool2d(op: o.MaxPool2d, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    _check_same_codes(inputs[0], op.out)
    size = pooled_size(inputs[0].shape[1:], op.kernel, op.stride, op.padding, op.dilation)
    _check_shape(op.out.shape, (inputs[0].shape[0], *size), "output")


@_rule(o.AvgPool2d)
def _avg_pool2d(op: o.AvgPool2d, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    size = pooled_size(inputs[0].shape[1:], op.kernel, op.stride, op.padding, (1, 1))
    _check_shape(op.out.shape, (inputs[0].shape[0], *size), "output")
    shape = tuple(constants["multiplier"].shape)
    _check(shape in {(1, 1), size}, f"multiplier has shape {shape}, expected (1, 1) or {size}")
    _check_dyadic(constants, shape)


def _check_positions(op: o.Op, source: o.TensorType, constants: Mapping[str, Tensor]) -> None:
    _check(len(op.out.shape) == 3, f"its output has shape {op.out.shape}, expected (C, H, W)")
    for axis, name in ((1, "row"), (2, "column")):
        positions, length = constants[name], source.shape[axis]
        _check_shape(tuple(positions.shape), op.out.shape[axis : axis + 1], name)
        _check(bool(((positions >= 0) & (positions < length)).all()), f"a {name} is outside 0..{length - 1}")


@_rule(o.Nearest)
def _nearest(op: o.Nearest, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    _check_same_codes(inputs[0], op.out)
    _check_shape(op.out.shape[:1], inputs[0].shape[:1], "output channels")
    _check_positions(op, inputs[0], constants)


@_rule(o.Bilinear)
def _bilinear(op: o.Bilinear, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    (source,) = inputs
    _check(source.bits <= o.STREAM_BITS, "interpolates accumulators; requantize them first")
    most = part_bits(source.bits)
    _check(0 <= op.part_bits <= most, f"has weights of {op.part_bits} bits, allowed are 0..{most} for its input")
    _check_shape(op.out.shape[:1], source.shape[:1], "output channels")
    _check_positions(op, source, constants)
    for name in ("row", "column"):
        part = constants[f"{name}_part"]
        _check_shape(tuple(part.shape), tuple(constants[name].shape), f"{name}_part")
        inside = bool(((part >= 0) & (part <= 1 << op.part_bits)).all())
        _check(inside, f"a {name}_part is outside 0..{1 << op.part_bits}")
    _check_dyadic(constants, (1,))


@_rule(o.Flatten)
def _flatten(op: o.Flatten, inputs: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> None:
    _check_same_codes(inputs[0], op.out)
    elements = 1
    for size in inputs[0].shape:
        elements *= size
    _check_shape(op.out.shape, (elements,), "output")
