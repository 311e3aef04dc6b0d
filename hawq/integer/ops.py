"""Name the typed operations of an IntegerProgram.

An op produces exactly one tensor, which carries the op's name (static single assignment). Its constants are tensors
stored under `<op name>.<constant>`; `constants` lists them. Codes of activations are laid out (N, C, H, W) or (N, F);
the types leave the batch dimension out.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hawq.errors import HawqError
from hawq.integer.arithmetic import code_range

__all__ = [
    "OPS",
    "Add",
    "AvgPool2d",
    "Bilinear",
    "Concat",
    "Conv2d",
    "Flatten",
    "Limit",
    "Linear",
    "MaxPool2d",
    "Mul",
    "Nearest",
    "Op",
    "Output",
    "PixelInput",
    "QuantizeInput",
    "Requantize",
    "Table",
    "TensorType",
    "Threshold",
]

ACCUMULATOR_BITS = 32
STREAM_BITS = 16
NARROW_BITS = 8


@dataclass(frozen=True)
class TensorType:
    """Describe the codes of one tensor.

    Attributes:
        shape: without the batch dimension: (C, H, W) or (F,).
        bits: 1..8, 16 for residual streams, 32 for accumulators (logits, and what a Threshold reads).
        signed: codes in [-2^(b-1), 2^(b-1)-1] if true, else [0, 2^b-1].
        scale: real value = scale * (code - zero_point), a float32 number; 1.0 for accumulators, whose scales are per
            channel: an output's are its `Output.scale`, others live in the thresholds of their reader.
        zero_point: integer, inside the code range.
    """

    shape: tuple[int, ...]
    bits: int
    signed: bool
    scale: float = 1.0
    zero_point: int = 0

    def __post_init__(self) -> None:
        """Check the fields against the ranges above.

        Raises:
            HawqError: one of them is outside.
        """
        if self.bits not in {*range(1, 9), STREAM_BITS, ACCUMULATOR_BITS}:
            raise HawqError(f"a tensor of {self.bits} bits is not allowed: use 1..8, 16 or 32")
        if len(self.shape) not in (1, 3) or not all(isinstance(d, int) and d > 0 for d in self.shape):
            raise HawqError(f"tensor shape {self.shape} is not (C, H, W) or (F,) of positive sizes")
        if not (0 < self.scale < float("inf")):
            raise HawqError(f"scale {self.scale} is not positive and finite")
        lo, hi = self.range
        if not lo <= self.zero_point <= hi:
            raise HawqError(f"zero point {self.zero_point} is outside the codes {lo}..{hi}")

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest code of the type."""
        return code_range(self.bits, self.signed)


@dataclass(frozen=True)
class Output:
    """Say what a program returns: real value = scale * integer, one IEEE multiplication each.

    Attributes:
        tensor: accumulators, or codes with zero point 0.
        scale: float32, (C,), one for every channel or feature of the tensor, or (1,).
    """

    tensor: str
    scale: Tensor

    def real(self, integers: Tensor) -> Tensor:
        """Return the float32 values of integers, (N, C) or (N, C, H, W)."""
        return integers.float() * self.scale.to(integers.device).view(-1, *[1] * (integers.dim() - 2))


@dataclass(frozen=True, kw_only=True)
class Op:
    """Produce the tensor `name` of type `out` from the tensors `inputs`."""

    name: str
    inputs: tuple[str, ...]
    out: TensorType

    constants: ClassVar[tuple[str, ...]] = ()
    arity: ClassVar[int | None] = 1

    @property
    def accumulates(self) -> bool:
        """Whether the output is the raw int32 accumulator, without requantization."""
        return self.out.bits == ACCUMULATOR_BITS


OPS: dict[str, type[Op]] = {}
"""Op classes by the kind written to files."""


def _register(cls: type[Op]) -> type[Op]:
    OPS[cls.__name__] = cls
    return cls


@dataclass(frozen=True, kw_only=True)
class _Clamped(Op):
    """An op that ends in a clamp to [lo, hi]; activation functions that are clamps live there."""

    lo: int
    hi: int


@_register
@dataclass(frozen=True, kw_only=True)
class QuantizeInput(_Clamped):
    """Quantize the network's float32 input: q = clamp(rint(x / scale) + zero_point, lo, hi). Has no input tensor."""

    arity: ClassVar[int | None] = 0


@_register
@dataclass(frozen=True, kw_only=True)
class PixelInput(_Clamped):
    """Quantize raw uint8 pixels: q = clamp((p * multiplier_c + offset_c + 2^(shift-1)) >> shift, lo, hi).

    Constants: multiplier int64 (C,), offset int64 (C,), shift int32 (1,).
    """

    constants: ClassVar[tuple[str, ...]] = ("multiplier", "offset", "shift")
    arity: ClassVar[int | None] = 0


@_register
@dataclass(frozen=True, kw_only=True)
class Conv2d(_Clamped):
    """Convolve: acc = sum((x - zx) * w) + bias in int32, then requantize per output channel.

    Constants: weight int8 (O, I/groups, KH, KW), bias int32 (O,); multiplier int32 (O,), shift int32 (O,) unless the
    output is the accumulator. `padding` is (top, bottom, left, right), filled with the code zx + fill: `fill` is the
    value of x - zx that padding holds, 0 for zeros, 1 where a binary network pads with +1.
    """

    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    fill: int = 0
    constants: ClassVar[tuple[str, ...]] = ("weight", "bias", "multiplier", "shift")


@_register
@dataclass(frozen=True, kw_only=True)
class Linear(_Clamped):
    """Multiply by a matrix: as Conv2d, with weight int8 (O, F) and an input of shape (F,)."""

    constants: ClassVar[tuple[str, ...]] = ("weight", "bias", "multiplier", "shift")


@_register
@dataclass(frozen=True, kw_only=True)
class Limit(Op):
    """Cut off channels one by one: y = min(x, limit_c). Type as the input's. Constants: limit int32 (C,).

    A ReLU6 whose channels were scaled by equalization is one clamp for all channels and then their limits.
    """

    constants: ClassVar[tuple[str, ...]] = ("limit",)


@_register
@dataclass(frozen=True, kw_only=True)
class Requantize(_Clamped):
    """Rescale codes: clamp((((x - zx) * m + 2^(s-1)) >> s) + zy, lo, hi). Constants: multiplier, shift int32 (1,)."""

    constants: ClassVar[tuple[str, ...]] = ("multiplier", "shift")


@_register
@dataclass(frozen=True, kw_only=True)
class Threshold(Op):
    """Count the thresholds a number reaches: y = level[#{j : x >= threshold_cj}], x as stored, zero point and all.

    Batch norm, activation and any monotone quantizer behind an accumulator, a stream or codes are one such op
    (FINN, arXiv 1612.07119). Constants: threshold int32 (C, L-1) or (1, L-1), non-decreasing along the last axis;
    level int32 (L,), 2 <= L <= 256, strictly increasing codes of the output. A threshold of -2^31 is always reached
    and one of 2^31 - 1 never: the certificate keeps accumulators below that.
    """

    constants: ClassVar[tuple[str, ...]] = ("threshold", "level")


@_register
@dataclass(frozen=True, kw_only=True)
class Add(_Clamped):
    """Add two tensors: clamp((((a - za) * m_0 + (b - zb) * m_1 + 2^(s-1)) >> s) + zy, lo, hi).

    Constants: multiplier int32 (2,), shift int32 (1,): one shared shift, one rounding.
    """

    constants: ClassVar[tuple[str, ...]] = ("multiplier", "shift")
    arity: ClassVar[int | None] = 2


@_register
@dataclass(frozen=True, kw_only=True)
class Mul(_Clamped):
    """Multiply (C, H, W) or (F,) by a tensor of the same shape, or by one code a channel, (C, 1, 1) or (C,).

    y = clamp((((a - za) * (b - zb) * m + 2^(s-1)) >> s) + zy, lo, hi); a has at most 16 bits, b at most 8, so that
    their product is an int32. Constants: multiplier, shift int32 (1,).
    """

    constants: ClassVar[tuple[str, ...]] = ("multiplier", "shift")
    arity: ClassVar[int | None] = 2


@_register
@dataclass(frozen=True, kw_only=True)
class Table(Op):
    """Look every code up: y = table[x - lowest code of x], x of at most 8 bits; any function of one number.

    Constants: table int32 (2^b,), codes of the output by the code of the input, lowest first.
    """

    constants: ClassVar[tuple[str, ...]] = ("table",)


@_register
@dataclass(frozen=True, kw_only=True)
class Concat(Op):
    """Concatenate along the channels; every input has the bits, sign, scale and zero point of the output."""

    arity: ClassVar[int | None] = None


@_register
@dataclass(frozen=True, kw_only=True)
class MaxPool2d(Op):
    """Take the maximum code of each window; padding (top, bottom, left, right) never wins. Type as the input's."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]


@_register
@dataclass(frozen=True, kw_only=True)
class AvgPool2d(_Clamped):
    """Sum (x - zx) over each window in int32, then requantize with 1/count inside the multiplier.

    Padding (top, bottom, left, right) adds nothing to the sum. Constants: multiplier, shift int32, (1, 1) or (OH, OW):
    the count differs between windows where the float layer leaves padding out of it.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    constants: ClassVar[tuple[str, ...]] = ("multiplier", "shift")


@_register
@dataclass(frozen=True, kw_only=True)
class Nearest(Op):
    """Pick rows and columns: y[c, i, j] = x[c, row_i, column_j]. Type as the input's.

    Constants: row int32 (OH,), column int32 (OW,).
    """

    constants: ClassVar[tuple[str, ...]] = ("row", "column")


@_register
@dataclass(frozen=True, kw_only=True)
class Bilinear(_Clamped):
    """Interpolate between rows and columns by weights in units of 2^-part_bits, with one rounding.

    With r = row_i, p = row_part_i and c, q alike of column j, P = 2^part_bits:
    acc = (P-p)(P-q) x[r, c] + (P-p) q x[r, c+1] + p (P-q) x[r+1, c] + p q x[r+1, c+1], x less its zero point, in int32,
    then requantize with 1/P^2 inside the multiplier. The last row stands for the one behind it, as does the last
    column. Constants: row, row_part int32 (OH,), column, column_part int32 (OW,), multiplier, shift int32 (1,).
    """

    part_bits: int
    constants: ClassVar[tuple[str, ...]] = ("row", "row_part", "column", "column_part", "multiplier", "shift")


@_register
@dataclass(frozen=True, kw_only=True)
class Flatten(Op):
    """Reshape (C, H, W) to (C*H*W,), channels outermost. Type as the input's."""
