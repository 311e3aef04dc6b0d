"""Lower a quantized model to an IntegerProgram: scales become dyadic numbers, clamps become code ranges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from hawq.errors import HawqError
from hawq.graph import ir
from hawq.integer import ops as o
from hawq.integer.arithmetic import code_range, dyadic, dyadic_shared, fixed_positions, part_bits
from hawq.integer.ops import ACCUMULATOR_BITS, TensorType
from hawq.integer.program import IntegerProgram
from hawq.qat.tables import tabulate
from hawq.qat.thresholds import accumulator_thresholds, code_thresholds
from hawq.quantizers.threshold import ThresholdActivation

if TYPE_CHECKING:
    from hawq.qat.model import QuantizedModel
    from hawq.quantizers import ActivationQuantizer

__all__ = ["PixelScaling", "lower"]

_OpT = TypeVar("_OpT", bound=ir.Op)
_RULES: dict[type[ir.Op], Callable[..., None]] = {}


@dataclass(frozen=True)
class PixelScaling:
    """Say how raw pixels become the network's input: x = (p / 255 - mean_c) / std_c, one number per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def lower(model: QuantizedModel, pixels: PixelScaling | None = None) -> IntegerProgram:
    """Return the model as an IntegerProgram.

    Args:
        model: calibrated or trained.
        pixels: fold this scaling into the first op, so that the program takes uint8 pixels instead of float32 images.

    Raises:
        HawqError: a range was never observed, weights are not finite, or scales are beyond dyadic numbers.
    """
    lowering = _Lowering(model, pixels)
    for node in model.graph.nodes.values():
        try:
            _RULES[type(node.op)](lowering, node, node.op)
        except HawqError as error:
            raise HawqError(f"{node.name}: {error}") from error
    return lowering.program()


class _Lowering:
    """Collect ops and constants; know the type of every tensor."""

    def __init__(self, model: QuantizedModel, pixels: PixelScaling | None) -> None:
        self.model, self.pixels = model, pixels
        self.ops: list[o.Op] = []
        self.types: dict[str, TensorType] = {}
        self.tensors: dict[str, Tensor] = {}
        self.accumulator_scales: dict[str, Tensor] = {}

    def emit(self, op: o.Op, **constants: Tensor) -> None:
        self.ops.append(op)
        self.types[op.name] = op.out
        self.tensors.update({f"{op.name}.{name}": tensor for name, tensor in constants.items()})

    def out_type(self, node: ir.Node) -> TensorType:
        """Return the type a node's codes are kept in; int32 for logits that stay accumulators."""
        quantizer = self.model.stored_quantizer(node.name)
        return (
            TensorType(node.shape, ACCUMULATOR_BITS, True) if quantizer is None else quantizer.tensor_type(node.shape)
        )

    def requantized(self, source: str, name: str, quantizer: ActivationQuantizer) -> str:
        """Return the tensor `name` that holds `source` in the codes of `quantizer`; made on the first call."""
        before = self.types[source]
        after = quantizer.tensor_type(before.shape)
        if after == before:
            return source
        if name not in self.types and isinstance(quantizer, ThresholdActivation):
            limits = code_thresholds(quantizer.levels(), before)
            self.emit(o.Threshold(name=name, inputs=(source,), out=after), **limits)
        elif name not in self.types:
            multiplier, shift = dyadic(torch.tensor([before.scale], dtype=torch.float64) / after.scale)
            lo, hi = after.range
            op = o.Requantize(name=name, inputs=(source,), out=after, lo=lo, hi=hi)
            self.emit(op, multiplier=multiplier.int(), shift=shift.int())
        return name

    def program(self) -> IntegerProgram:
        """Return the collected ops as a program."""
        bits, named = self.model.bits, self.model.graph.outputs
        outputs = {name: o.Output(tensor, self.output_scale(tensor)) for name, tensor in named.items()}
        return IntegerProgram(bits.arch, bits.scheme, tuple(self.ops), self.tensors, outputs)

    def output_scale(self, tensor: str) -> Tensor:
        """Return the scale of an output, (1,), or of every channel or feature of accumulators."""
        out = self.types[tensor]
        if out.bits != ACCUMULATOR_BITS:
            return torch.tensor([out.scale], dtype=torch.float32)
        scale = self.accumulator_scales[self.model.plan.domains[tensor].root]
        return scale.repeat_interleave(out.shape[0] // len(scale))  # a flattened map's features lie channel by channel


def _rule(kind: type[_OpT]) -> Callable[[Callable[[_Lowering, ir.Node, _OpT], None]], Callable[..., None]]:
    def register(rule: Callable[[_Lowering, ir.Node, _OpT], None]) -> Callable[..., None]:
        _RULES[kind] = rule
        return rule

    return register


def _code_limits(out: TensorType, clamp: ir.Clamp | None) -> dict[str, int]:
    """Return the code range cut by an activation: the code of a limit v is rint(v / scale) + zero point."""
    lo, hi = out.range
    if clamp is not None and clamp.lo is not None:
        lo = max(lo, _code(clamp.lo, out))
    if clamp is not None and clamp.hi is not None:
        hi = min(hi, _code(clamp.hi, out))
    return {"lo": lo, "hi": hi}


def _code(value: float, out: TensorType) -> int:
    return round(value / out.scale) + out.zero_point


@_rule(ir.Input)
def _input(lowering: _Lowering, node: ir.Node, op: ir.Input) -> None:
    out = lowering.out_type(node)
    lo, hi = out.range
    if lowering.pixels is None:
        lowering.emit(o.QuantizeInput(name=node.name, inputs=(), out=out, lo=lo, hi=hi))
        return
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (lowering.pixels.mean, lowering.pixels.std))
    multiplier, shift = dyadic_shared(1 / (255 * std * out.scale))
    offset = torch.round((out.zero_point - mean / (std * out.scale)) * 2.0 ** int(shift)).long()
    pixel_input = o.PixelInput(name=node.name, inputs=(), out=out, lo=lo, hi=hi)
    lowering.emit(pixel_input, multiplier=multiplier, offset=offset, shift=shift.int())


def _unit(lowering: _Lowering, node: ir.Node, make: Callable[..., o.Op], source: str, **geometry: Any) -> None:
    codes = lowering.model.unit(node.name).codes(lowering.types[source])
    out = lowering.out_type(node)
    constants = {"weight": codes.weight, "bias": codes.bias}
    limit = lowering.model.unit(node.name).limit
    quantizer = lowering.model.stored_quantizer(node.name)
    if limit is not None and (out.bits == ACCUMULATOR_BITS or isinstance(quantizer, ThresholdActivation)):
        raise HawqError("limits of single channels need uniform codes behind the unit; quantize it by another rule")
    if isinstance(quantizer, ThresholdActivation):
        accumulator = TensorType(node.shape, ACCUMULATOR_BITS, True)
        lo, hi = accumulator.range
        name = f"{node.name}.acc"
        constants["bias"] = torch.zeros_like(codes.bias)
        lowering.emit(make(name=name, inputs=(source,), out=accumulator, lo=lo, hi=hi, **geometry), **constants)
        clamp = getattr(node.op, "clamp", None)
        steps = accumulator_thresholds(quantizer.levels(), codes.accumulator_scale, codes.real_bias, clamp)
        lowering.emit(o.Threshold(name=node.name, inputs=(name,), out=out), **steps)
        return
    if out.bits == ACCUMULATOR_BITS:
        lo, hi = out.range
        limits = {"lo": lo, "hi": hi}
        lowering.accumulator_scales[node.name] = codes.accumulator_scale.float()
    else:
        constants["multiplier"], constants["shift"] = codes.dyadic_to(out)
        limits = _code_limits(out, getattr(node.op, "clamp", None))
    highest = torch.tensor([limits["hi"]])
    if limit is not None:
        highest = torch.round(limit.cpu().double() / out.scale) + out.zero_point
        highest = highest.clamp(limits["lo"], limits["hi"]).int()
        limits["hi"] = int(highest.max())
    alike = int(highest.min()) == limits["hi"]
    name = node.name if alike else f"{node.name}.open"
    lowering.emit(make(name=name, inputs=(source,), out=out, **limits, **geometry), **constants)
    if not alike:
        lowering.emit(o.Limit(name=node.name, inputs=(name,), out=out), limit=highest)


def _narrow(lowering: _Lowering, source: str) -> str:
    """Return the tensor that units, tables and second factors read in place of `source`."""
    return lowering.requantized(source, f"{source}.read", lowering.model.input_quantizer(source))


@_rule(ir.Conv2d)
def _conv2d(lowering: _Lowering, node: ir.Node, op: ir.Conv2d) -> None:
    fill = lowering.model.input_quantizer(node.inputs[0]).fill() if any(op.padding) else 0
    geometry = {"stride": op.stride, "padding": op.padding, "dilation": op.dilation, "groups": op.groups, "fill": fill}
    _unit(lowering, node, o.Conv2d, _narrow(lowering, node.inputs[0]), **geometry)


@_rule(ir.Linear)
def _linear(lowering: _Lowering, node: ir.Node, op: ir.Linear) -> None:
    _unit(lowering, node, o.Linear, _narrow(lowering, node.inputs[0]))


@_rule(ir.Norm)
def _norm(lowering: _Lowering, node: ir.Node, op: ir.Norm) -> None:
    depthwise = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": node.shape[0]}
    _unit(lowering, node, o.Conv2d, node.inputs[0], **depthwise)


@_rule(ir.Add)
def _add(lowering: _Lowering, node: ir.Node, op: ir.Add) -> None:
    out = lowering.out_type(node)
    ratios = torch.tensor([lowering.types[name].scale for name in node.inputs], dtype=torch.float64) / out.scale
    multiplier, shift = dyadic_shared(ratios)
    add = o.Add(name=node.name, inputs=node.inputs, out=out, **_code_limits(out, op.clamp))
    lowering.emit(add, multiplier=multiplier.int(), shift=shift.int())


@_rule(ir.Mul)
def _mul(lowering: _Lowering, node: ir.Node, op: ir.Mul) -> None:
    out, inputs = lowering.out_type(node), (node.inputs[0], _narrow(lowering, node.inputs[1]))
    first, second = (torch.tensor([lowering.types[name].scale], dtype=torch.float64) for name in inputs)
    multiplier, shift = dyadic(first * second / out.scale)
    mul = o.Mul(name=node.name, inputs=inputs, out=out, **_code_limits(out, op.clamp))
    lowering.emit(mul, multiplier=multiplier.int(), shift=shift.int())


@_rule(ir.Unary)
def _unary(lowering: _Lowering, node: ir.Node, op: ir.Unary) -> None:
    source, quantizer = _narrow(lowering, node.inputs[0]), lowering.model.stored_quantizer(node.name)
    assert quantizer is not None  # only units end in accumulators
    table = tabulate(op.curve, lowering.types[source], quantizer)
    lowering.emit(o.Table(name=node.name, inputs=(source,), out=lowering.out_type(node)), table=table)


@_rule(ir.Relu)
def _relu(lowering: _Lowering, node: ir.Node, op: ir.Relu) -> None:
    out, before = lowering.out_type(node), lowering.types[node.inputs[0]]
    multiplier, shift = dyadic(torch.tensor([before.scale], dtype=torch.float64) / out.scale)
    relu = o.Requantize(name=node.name, inputs=node.inputs, out=out, **_code_limits(out, op.clamp))
    lowering.emit(relu, multiplier=multiplier.int(), shift=shift.int())


@_rule(ir.Concat)
def _concat(lowering: _Lowering, node: ir.Node, op: ir.Concat) -> None:
    quantizer = lowering.model.stored_quantizer(node.name)
    if quantizer is None:
        raise HawqError("concatenated logits are not supported: end the network in one linear layer or convolution")
    inputs = [lowering.requantized(name, f"{name}.to.{node.name}", quantizer) for name in node.inputs]
    lowering.emit(o.Concat(name=node.name, inputs=tuple(inputs), out=lowering.out_type(node)))


def _same_codes(lowering: _Lowering, node: ir.Node) -> TensorType:
    return replace(lowering.types[node.inputs[0]], shape=node.shape)


@_rule(ir.MaxPool2d)
def _max_pool2d(lowering: _Lowering, node: ir.Node, op: ir.MaxPool2d) -> None:
    geometry: dict[str, Any] = {"stride": op.stride, "padding": op.padding, "dilation": op.dilation}
    out = _same_codes(lowering, node)
    lowering.emit(o.MaxPool2d(name=node.name, inputs=node.inputs, out=out, kernel=op.kernel, **geometry))


@_rule(ir.AvgPool2d)
def _avg_pool2d(lowering: _Lowering, node: ir.Node, op: ir.AvgPool2d) -> None:
    out, before = lowering.out_type(node), lowering.types[node.inputs[0]]
    counts = torch.tensor(op.counts if isinstance(op.counts, Sequence) else [[op.counts]], dtype=torch.float64)
    multiplier, shift = dyadic(before.scale / (counts * out.scale))
    lo, hi = code_range(out.bits, out.signed)
    geometry = {"kernel": op.kernel, "stride": op.stride, "padding": op.padding}
    pool = o.AvgPool2d(name=node.name, inputs=node.inputs, out=out, lo=lo, hi=hi, **geometry)  # type: ignore[arg-type]
    lowering.emit(pool, multiplier=multiplier.int(), shift=shift.int())


@_rule(ir.Resize)
def _resize(lowering: _Lowering, node: ir.Node, op: ir.Resize) -> None:
    before = lowering.types[node.inputs[0]]
    bits = part_bits(before.bits)
    axes = (torch.tensor(positions, dtype=torch.float64) for positions in (op.rows, op.columns))
    (row, row_part), (column, column_part) = (fixed_positions(positions, bits) for positions in axes)
    if op.moves:
        nearest = o.Nearest(name=node.name, inputs=node.inputs, out=_same_codes(lowering, node))
        lowering.emit(nearest, row=row, column=column)
        return
    out = lowering.out_type(node)
    multiplier, shift = dyadic(torch.tensor([before.scale * 4.0**-bits], dtype=torch.float64) / out.scale)
    lo, hi = out.range
    bilinear = o.Bilinear(name=node.name, inputs=node.inputs, out=out, lo=lo, hi=hi, part_bits=bits)
    parts = {"row": row, "row_part": row_part, "column": column, "column_part": column_part}
    lowering.emit(bilinear, **parts, multiplier=multiplier.int(), shift=shift.int())


@_rule(ir.Flatten)
def _flatten(lowering: _Lowering, node: ir.Node, op: ir.Flatten) -> None:
    lowering.emit(o.Flatten(name=node.name, inputs=node.inputs, out=_same_codes(lowering, node)))
