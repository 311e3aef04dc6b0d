"""Hold what op definitions are written with: sites, bodies, and each formula of the integer semantics as TensorIR.

The formulas are those of hawq.integer.arithmetic. TVM compiles int32 arithmetic as if it never overflowed, so every
int32 sum needs a proof that it stays inside: the certificate's, or `byte_sum_fits` of tvm_export.sums.
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from tvm import te, tirx

from hawq.integer import TensorType
from hawq.integer import ops as o
from hawq.integer.geometry import Padding, Pair
from tvm_export.instructions import PORTABLE, Instruction
from tvm_export.plans import Plan
from tvm_export.storage import Batch, Expr, Storage
from tvm_export.upper_halves import UPPER, upper_half

__all__ = [
    "DEFINITIONS",
    "POINTWISE",
    "Body",
    "Code",
    "Constants",
    "Definition",
    "Geometry",
    "Site",
    "byte_table",
    "constant",
    "definition",
    "distance",
    "inside",
    "pointwise",
    "pointwise_body",
    "requantized",
    "rounding_shift",
    "source_channel",
]

_OpT = TypeVar("_OpT", bound=o.Op)

Code = Callable[[Expr, Expr, Expr, Expr], Expr]
"""The code at (n, h, w, c), an integer expression inside the code range."""

Constants = tuple[tuple[te.Tensor, np.ndarray], ...]
"""Constant arguments of a kernel with their values."""


@dataclass(frozen=True)
class Site:
    """An op together with the storage of its tensors, and the ops that its kernel computes behind it.

    Attributes:
        op: the operation.
        inputs: storage of its input tensors.
        out: storage of its output.
        constants: numpy arrays by their short names.
        batch: images per call.
        kept: whether the kernel writes the output to memory; otherwise only its followers see it.
        followers: ops of the kinds in POINTWISE, each of which reads what an earlier one of the kernel made.
        instruction: for dense products.
        plan: of a dense product; by default the one estimated to be fastest.
    """

    op: o.Op
    inputs: tuple[Storage, ...]
    out: Storage
    constants: Mapping[str, np.ndarray]
    batch: Batch
    kept: bool = True
    followers: tuple["Site", ...] = ()
    instruction: Instruction = PORTABLE
    plan: Plan | None = None

    @property
    def reads(self) -> tuple[tuple[str, Storage], ...]:
        """Names and storage of the tensors that the kernel takes, in the order of its arguments."""
        members = (self, *self.followers)
        inner = {site.op.name for site in members}
        return tuple(
            (name, source)
            for site in members
            for name, source in zip(site.op.inputs, site.inputs, strict=True)
            if name not in inner
        )

    @property
    def written(self) -> dict[str, Storage]:
        """Storage of the tensors that the kernel writes, by name, in the order of its arguments."""
        return {site.op.name: site.out for site in (self, *self.followers) if site.kept}


@dataclass(frozen=True)
class Body:
    """What an op computes, apart from where the result goes.

    Attributes:
        activations: read from memory.
        constants: of the op.
        code: the result.
    """

    activations: tuple[te.Tensor, ...]
    constants: Constants
    code: Code


@dataclass(frozen=True)
class Definition:
    """A kernel as tensor expressions: activations, then constants, then outputs."""

    activations: tuple[te.Tensor, ...]
    constants: Constants
    outs: tuple[te.Tensor, ...]

    @property
    def arguments(self) -> list[te.Tensor]:
        """All tensors of the kernel's signature."""
        return [*self.activations, *(tensor for tensor, _ in self.constants), *self.outs]


_Define = Callable[[_OpT, Site], Body]
_Formula = Callable[[_OpT, Site, Sequence[Code]], tuple[Constants, Code]]

DEFINITIONS: dict[type[o.Op], Callable[[Any, Site], Body]] = {}
"""The one definition of every op, by its type."""

POINTWISE: dict[type[o.Op], Callable[[Any, Site, Sequence[Code]], tuple[Constants, Code]]] = {}
"""Ops that need one code of each input for a code of the output: constants and result, given the inputs."""


def definition(kind: type[_OpT]) -> Callable[[_Define[_OpT]], _Define[_OpT]]:
    """Register a function as the definition of an op type."""

    def register(function: _Define[_OpT]) -> _Define[_OpT]:
        DEFINITIONS[kind] = function
        return function

    return register


def pointwise(kind: type[_OpT]) -> Callable[[_Formula[_OpT]], _Formula[_OpT]]:
    """Register a function as the definition of an op type that other kernels may compute behind their own op."""

    def register(function: _Formula[_OpT]) -> _Formula[_OpT]:
        POINTWISE[kind] = function
        DEFINITIONS[kind] = lambda _, site: pointwise_body(site, {})
        return function

    return register


def pointwise_body(site: Site, made: Mapping[str, Code]) -> Body:
    """Return what an op in POINTWISE computes, from tensors in memory and those its kernel has made, by name."""
    activations, values = [], []
    for name, source in zip(site.op.inputs, site.inputs, strict=True):
        if name in made:
            values.append(made[name])
            continue
        x = source.placeholder(site.batch, f"in{len(activations)}")
        activations.append(x)
        values.append(_reader(x, source, site))
    constants, code = POINTWISE[type(site.op)](site.op, site, values)
    return Body(tuple(activations), constants, code)


def _reader(x: te.Tensor, source: Storage, site: Site) -> Code:
    return lambda n, h, w, c: source.read(x, n, h, w, source_channel(c, site, source))


@dataclass(frozen=True)
class Geometry:
    """Where windows lie: padding is (top, bottom, left, right), and a convolution's holds x - zx = fill.

    A linear layer is the default on a 1x1 map.
    """

    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    fill: int = 0

    def position(self, h: Expr, w: Expr, kh: Expr, kw: Expr) -> tuple[Expr, Expr]:
        """Return where tap (kh, kw) of window (h, w) reads in the unpadded input."""
        (sh, sw), (dh, dw), (top, _, left, _) = self.stride, self.dilation, self.padding
        return h * sh + kh * dh - top, w * sw + kw * dw - left


def rounding_shift(value: Expr, shift: Expr, kind: str = "int64") -> Expr:
    """Return (value + 2^(s-1)) >> s in the type of the value: halves round up."""
    s = shift.astype(kind)
    return tirx.shift_right(value + tirx.shift_left(tirx.const(1, kind), s - 1), s)


def requantized(
    op: o._Clamped, products: Sequence[tuple[Expr, Expr]], shift: Expr, shifts: np.ndarray, bits: int
) -> Expr:
    """Return clamp(((sum of v * m + 2^(s-1)) >> s) + zy, lo, hi).

    With s > 32 only the upper halves of the products matter: floor(p / 2^s) = floor(floor(p / 2^32) / 2^(s-32)), and
    the 2^(s-1) is whole there. What follows the products then needs half as many vectors. A smaller shift is brought
    there by shifting v to the left, where it is small enough.

    Args:
        op: says zy, lo and hi.
        products: v and m, int32.
        shift: s, int32.
        shifts: every value of it.
        bits: |v| <= 2^bits; the sum of the products is within int64.
    """
    lift = max(0, UPPER + 1 - int(shifts.min()))
    if int(shifts.max()) + lift <= 62 and bits + lift + len(products) <= UPPER:
        kind = "int32"
        # the mask changes nothing: without it TVM bounds a shift by any int32, wrongly, and drops the clamp
        left = tirx.bitwise_and(shift + (lift - UPPER), tirx.const(31, kind))
        high = upper_half([(v * 2**lift, m) for v, m in products])
        scaled = rounding_shift(high, left, kind)
    else:
        kind = "int64"
        wide = (v.astype(kind) * m.astype(kind) for v, m in products)
        scaled = rounding_shift(functools.reduce(operator.add, wide), shift)
    zero, lo, hi = (tirx.const(limit, kind) for limit in (op.out.zero_point, op.lo, op.hi))
    return tirx.max(tirx.min(scaled + zero, hi), lo)


def distance(value: Expr, kind: TensorType) -> tuple[Expr, int]:
    """Return code - zero point, and the bits that its magnitude takes."""
    if kind.zero_point == 0:
        return value, kind.bits - kind.signed
    wide = value.astype("int64") if kind.bits == o.ACCUMULATOR_BITS else value
    return wide - kind.zero_point, kind.bits


def constant(array: np.ndarray, name: str) -> tuple[te.Tensor, np.ndarray]:
    """Return a constant as an argument of a kernel, with its value."""
    array = np.ascontiguousarray(array)
    return te.placeholder(array.shape, str(array.dtype), name=name), array


def byte_table(site: Site) -> np.ndarray:
    """Return the table of a Table for every byte that may be stored: an index x & 255 needs no check."""
    lowest, highest = site.inputs[0].type.range
    table = np.zeros(256, np.int32)
    table[np.arange(lowest, highest + 1) & 255] = site.constants["table"]
    return table


def inside(size: tuple[int, int], h: Expr, w: Expr) -> Expr:
    """Return whether (h, w) lies in a map of (H, W)."""
    return tirx.all(h >= 0, h < size[0], w >= 0, w < size[1])


def source_channel(c: Expr, site: Site, source: Storage) -> Expr:
    """Keep a stored channel of the output inside the stored channels of an input that has fewer."""
    return c if site.out.channels <= source.channels else tirx.min(c, source.channels - 1)
