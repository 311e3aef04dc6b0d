"""Execute an IntegerProgram exactly, in PyTorch, on CPU or CUDA: the reference every backend is compared with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hawq.errors import HawqError
from hawq.integer import ops as o
from hawq.integer.arithmetic import quantize, quantize_pixels, requantize, rounding_shift
from hawq.integer.certificate import LayerBound, certify, partial_sum_bound
from hawq.integer.geometry import Padding
from hawq.integer.program import IntegerProgram
from hawq.outputs import plain

__all__ = ["ReferenceExecutor", "execute_op"]

_CHUNK_VALUES = 1 << 21
"""Values of the largest tensor that are computed at once: int64 arithmetic on more of them waits for memory."""

_OpT = TypeVar("_OpT", bound=o.Op)
_Kernel = Callable[[_OpT, Sequence[Tensor], Sequence[o.TensorType], Mapping[str, Tensor]], Tensor]
_KERNELS: dict[type[o.Op], _Kernel[o.Op]] = {}


def execute_op(
    op: o.Op, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    """Return the codes one op produces.

    Args:
        op: the operation.
        inputs: codes, int32, (N, *shape) each; the image for an input op.
        types: types of the inputs; empty for an input op.
        constants: by their short names, on the device of the inputs.

    Returns:
        Codes, int32, (N, *op.out.shape).
    """
    with torch.no_grad(), _exact_arithmetic():
        return _KERNELS[type(op)](op, inputs, types, constants)


class ReferenceExecutor:
    """Run a program on one device.

    Args:
        program: certified on construction.
        device: where to run; the integers are the same everywhere.

    Raises:
        HawqError: an accumulator may leave int32.
    """

    def __init__(self, program: IntegerProgram, device: torch.device | str = "cpu") -> None:
        certify(program)
        self.program = program
        self.device = torch.device(device)
        self._constants = {
            op.name: {k: v.to(self.device) for k, v in program.constants(op).items()} for op in program.ops
        }
        largest = max(prod(op.out.shape) for op in program.ops)
        self._chunk = max(1, _CHUNK_VALUES // largest)
        last_use = {name: op.name for op in program.ops for name in op.inputs}
        kept = {output.tensor for output in program.outputs.values()}
        self._dies_after = {
            op.name: [n for n in dict.fromkeys(op.inputs) if last_use[n] == op.name and n not in kept]
            for op in program.ops
        }

    def __call__(self, image: Tensor) -> Any:
        """Return the integers, int32, of images: float32 or uint8 as the program's input wants it.

        Those of the only output, (N, classes) or (N, C, H, W), or of several by name.
        """
        return plain(self.integers(image))

    def logits(self, image: Tensor) -> Any:
        """Return float32 values in place of the integers: one IEEE multiplication each."""
        found = self.integers(image)
        return plain({name: output.real(found[name]) for name, output in self.program.outputs.items()})

    def integers(self, image: Tensor) -> dict[str, Tensor]:
        """Return the integers of every output, int32, (N, ...), by name."""
        parts = [self._run(part, keep=False) for part in torch.split(image, self._chunk)]
        return {
            name: torch.cat([codes[output.tensor] for codes in parts]) for name, output in self.program.outputs.items()
        }

    def trace(self, image: Tensor) -> dict[str, Tensor]:
        """Return the codes of every tensor of the program, int32, by name, in execution order."""
        return self._run(image, keep=True)

    def _run(self, image: Tensor, keep: bool) -> dict[str, Tensor]:
        _check_image(self.program.input, image)
        types = self.program.types
        codes: dict[str, Tensor] = {}
        for op in self.program.ops:
            inputs = [codes[name] for name in op.inputs] if op.inputs else [image.to(self.device)]
            codes[op.name] = execute_op(op, inputs, [types[n] for n in op.inputs], self._constants[op.name])
            if not keep:
                for name in self._dies_after[op.name]:
                    del codes[name]
        return codes


def _check_image(op: o.Op, image: Tensor) -> None:
    wanted = torch.uint8 if isinstance(op, o.PixelInput) else torch.float32
    if image.dtype != wanted or tuple(image.shape[1:]) != op.out.shape:
        raise HawqError(
            f"the program wants images of {wanted}, shape (N, {', '.join(map(str, op.out.shape))}); "
            f"given: {image.dtype}, {tuple(image.shape)}"
        )
    if image.dtype.is_floating_point and not bool(torch.isfinite(image).all()):
        raise HawqError("the image holds NaN or infinity, which no code stands for")


@contextmanager
def _exact_arithmetic() -> Iterator[None]:
    """Forbid arithmetic that rounds: TF32 and bfloat16 shortcuts, and cuDNN's Winograd and FFT algorithms."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _kernel(kind: type[_OpT]) -> Callable[[_Kernel[_OpT]], _Kernel[_OpT]]:
    def register(kernel: _Kernel[_OpT]) -> _Kernel[_OpT]:
        _KERNELS[kind] = kernel  # type: ignore[assignment]  # the key guarantees the argument's type
        return kernel

    return register


def _pad(x: Tensor, padding: Padding, value: int = 0) -> Tensor:
    top, bottom, left, right = padding
    return F.pad(x, (left, right, top, bottom), value=value) if any(padding) else x


@_kernel(o.QuantizeInput)
def _quantize_input(
    op: o.QuantizeInput, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    scale = torch.tensor(op.out.scale, dtype=torch.float32, device=inputs[0].device)
    return quantize(inputs[0].float(), scale, op.out.zero_point, op.lo, op.hi)


@_kernel(o.PixelInput)
def _pixel_input(
    op: o.PixelInput, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    c = constants
    return quantize_pixels(inputs[0], c["multiplier"], c["offset"], c["shift"], op.lo, op.hi)


def _finish(op: o._Clamped, accumulator: Tensor, constants: Mapping[str, Tensor]) -> Tensor:
    """Add the bias, then requantize per output channel, or hand the accumulator out."""
    per_channel = (1, -1) + (1,) * (accumulator.dim() - 2)
    total = accumulator.long() + constants["bias"].long().view(per_channel)
    if op.accumulates:
        return total.int()
    m, s = constants["multiplier"].view(per_channel), constants["shift"].view(per_channel)
    return requantize(total, m, s, op.out.zero_point, op.lo, op.hi)


def _exact_dtype(source: o.TensorType, constants: Mapping[str, Tensor]) -> torch.dtype:
    return LayerBound("", *partial_sum_bound(constants["weight"], constants["bias"], source)).dtype


@_kernel(o.Conv2d)
def _conv2d(
    op: o.Conv2d, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    dtype = _exact_dtype(types[0], constants)
    x = _pad((inputs[0] - types[0].zero_point).to(dtype), op.padding, value=op.fill)
    weight = constants["weight"].to(dtype)
    return _finish(op, F.conv2d(x, weight, None, op.stride, 0, op.dilation, op.groups), constants)


@_kernel(o.Linear)
def _linear(
    op: o.Linear, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    dtype = _exact_dtype(types[0], constants)
    x = (inputs[0] - types[0].zero_point).to(dtype)
    return _finish(op, F.linear(x, constants["weight"].to(dtype)), constants)


@_kernel(o.Limit)
def _limit(
    op: o.Limit, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    return inputs[0].minimum(constants["limit"].view(-1, *(1,) * (inputs[0].dim() - 2)))


@_kernel(o.Requantize)
def _requantize(
    op: o.Requantize, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    x = inputs[0].long() - types[0].zero_point
    return requantize(x, constants["multiplier"], constants["shift"], op.out.zero_point, op.lo, op.hi)


@_kernel(o.Threshold)
def _threshold(
    op: o.Threshold, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    rows = inputs[0].transpose(0, 1)  # a binary search in the thresholds of each channel
    sorted_rows = constants["threshold"].expand(len(rows), -1).contiguous()
    reached = torch.searchsorted(sorted_rows, rows.flatten(1).contiguous(), right=True)
    return constants["level"][reached].view(rows.shape).transpose(0, 1).contiguous()


@_kernel(o.Add)
def _add(op: o.Add, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> Tensor:
    m = constants["multiplier"].long()
    terms = [(x.long() - t.zero_point) * m[i] for i, (x, t) in enumerate(zip(inputs, types, strict=True))]
    total = rounding_shift(terms[0] + terms[1], constants["shift"].long())
    return (total + op.out.zero_point).clamp(op.lo, op.hi).int()


@_kernel(o.Mul)
def _mul(op: o.Mul, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> Tensor:
    a, b = (x - kind.zero_point for x, kind in zip(inputs, types, strict=True))
    product = a * b.view(*b.shape, *[1] * (a.dim() - b.dim()))
    return requantize(product, constants["multiplier"], constants["shift"], op.out.zero_point, op.lo, op.hi)


@_kernel(o.Table)
def _table(
    op: o.Table, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    return constants["table"][(inputs[0] - types[0].range[0]).long()]


@_kernel(o.Concat)
def _concat(
    op: o.Concat, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    return torch.cat(list(inputs), dim=1)


@_kernel(o.MaxPool2d)
def _max_pool2d(
    op: o.MaxPool2d, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    dtype = torch.float64 if op.accumulates else torch.float32  # codes of 16 bits are exact in float32
    x = _pad(inputs[0].to(dtype), op.padding, value=op.out.range[0])
    return F.max_pool2d(x, op.kernel, op.stride, 0, op.dilation).int()


@_kernel(o.AvgPool2d)
def _avg_pool2d(
    op: o.AvgPool2d, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    x = _pad((inputs[0] - types[0].zero_point).double(), op.padding)
    total = F.avg_pool2d(x, op.kernel, op.stride, divisor_override=1)  # a sum of integers: exact in float64
    return requantize(total.long(), constants["multiplier"], constants["shift"], op.out.zero_point, op.lo, op.hi)


@_kernel(o.Nearest)
def _nearest(
    op: o.Nearest, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    return inputs[0][:, :, constants["row"]][:, :, :, constants["column"]]


@_kernel(o.Bilinear)
def _bilinear(
    op: o.Bilinear, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    total, whole = inputs[0] - types[0].zero_point, 1 << op.part_bits
    for axis, name in ((2, "row"), (3, "column")):
        first, part = constants[name], constants[f"{name}_part"].view(-1, *[1] * (3 - axis))
        low, high = (total.index_select(axis, at) for at in (first, (first + 1).clamp(max=total.shape[axis] - 1)))
        total = low * (whole - part) + high * part
    return requantize(total, constants["multiplier"], constants["shift"], op.out.zero_point, op.lo, op.hi)


@_kernel(o.Flatten)
def _flatten(
    op: o.Flatten, inputs: Sequence[Tensor], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]
) -> Tensor:
    return inputs[0].flatten(1)
