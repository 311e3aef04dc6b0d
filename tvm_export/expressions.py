"""Hold what op definitions are written with: sites, kernels, and each formula of the integer semantics as TensorIR.

The formulas are those of hawq.integer.arithmetic. TVM compiles int32 arithmetic as if it never overflowed, so every
int32 sum needs a proof that it stays inside: the certificate's, or `byte_sum_fits` of tvm_export.convolutions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from tvm import te, tirx

from hawq.integer import ops as o
from hawq.integer.geometry import Padding, Pair
from tvm_export.storage import Expr, Storage

__all__ = [
    "DEFINITIONS",
    "Definition",
    "Geometry",
    "Site",
    "clamp",
    "constant",
    "definition",
    "dyadic",
    "inside",
    "rounding_shift",
    "source_channel",
]

_OpT = TypeVar("_OpT", bound=o.Op)


@dataclass(frozen=True)
class Site:
    """An op together with the storage of its tensors.

    Attributes:
        op: the operation.
        inputs: storage of its input tensors.
        out: storage of its output.
        constants: numpy arrays by their short names.
        batch: images per call.
    """

    op: o.Op
    inputs: tuple[Storage, ...]
    out: Storage
    constants: Mapping[str, np.ndarray]
    batch: int


@dataclass(frozen=True)
class Definition:
    """A kernel as tensor expressions: activations, then constants, then the output."""

    activations: tuple[te.Tensor, ...]
    constants: tuple[tuple[te.Tensor, np.ndarray], ...]
    out: te.Tensor

    @property
    def arguments(self) -> list[te.Tensor]:
        """All tensors of the kernel's signature."""
        return [*self.activations, *(tensor for tensor, _ in self.constants), self.out]


DEFINITIONS: dict[type[o.Op], Callable[[Any, Site], Definition]] = {}
"""The one definition of every op, by its type."""


def definition(kind: type[_OpT]) -> Callable[[Callable[[_OpT, Site], Definition]], Callable[[_OpT, Site], Definition]]:
    """Register a function as the definition of an op type."""

    def register(function: Callable[[_OpT, Site], Definition]) -> Callable[[_OpT, Site], Definition]:
        DEFINITIONS[kind] = function
        return function

    return register


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


def rounding_shift(value: Expr, shift: Expr) -> Expr:
    """Return (value + 2^(s-1)) >> s in int64: halves round up."""
    s = shift.astype("int64")
    return tirx.shift_right(value + tirx.shift_left(tirx.const(1, "int64"), s - 1), s)


def dyadic(value: Expr, multiplier: Expr, shift: Expr) -> Expr:
    """Return (value * m + 2^(s-1)) >> s in int64."""
    return rounding_shift(value.astype("int64") * multiplier.astype("int64"), shift)


def clamp(value: Expr, op: o._Clamped) -> Expr:
    """Add the zero point to a value in int64 and cut it to the clamp of the op."""
    shifted = value + tirx.const(op.out.zero_point, "int64")
    return tirx.max(tirx.min(shifted, tirx.const(op.hi, "int64")), tirx.const(op.lo, "int64"))


def constant(array: np.ndarray, name: str) -> tuple[te.Tensor, np.ndarray]:
    """Return a constant as an argument of a kernel, with its value."""
    array = np.ascontiguousarray(array)
    return te.placeholder(array.shape, str(array.dtype), name=name), array


def inside(size: tuple[int, int], h: Expr, w: Expr) -> Expr:
    """Return whether (h, w) lies in a map of (H, W)."""
    return tirx.all(h >= 0, h < size[0], w >= 0, w < size[1])


def source_channel(c: Expr, site: Site, source: Storage) -> Expr:
    """Keep a stored channel of the output inside the stored channels of an input that has fewer."""
    return c if site.out.channels <= source.channels else tirx.min(c, source.channels - 1)
