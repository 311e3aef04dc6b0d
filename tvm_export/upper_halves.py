"""Add to TVM: the upper half of a sum of products, 16 numbers at once without a move between lanes.

What LLVM makes of (int64(v) * int64(m)) >> 32 over 16 lanes widens, multiplies and narrows two halves; moves between
lanes take longer than the products then. Here products are formed at even and at odd lanes, where they are.
"""

import functools
import operator
from collections.abc import Callable, Sequence

from tvm import tirx

from tvm_export.operations import add_operation
from tvm_export.storage import Expr

__all__ = ["UPPER", "upper_half"]

UPPER = 32
"""Bits of a product below its upper half."""

_NAME = "tirx.hawq_upper_half"


def upper_half(products: Sequence[tuple[Expr, Expr]]) -> Expr:
    """Return floor(sum of v * m / 2^32), int32, of int32 numbers; the sum is within int64."""
    return tirx.call_intrin("int32", _NAME, *(number for pair in products for number in pair))


def _lower(call: Expr) -> Expr:
    """Write the operation in terms of LLVM's and CUDA's own, for scalars and vectors.

    Odd lanes are swapped with even ones, then extended, instead of shifted: where LLVM moves the shift of a multiplier
    out of a loop, it no longer sees in there that 32 bits are enough, and AVX2 has no product of 64 bits.
    """
    lanes = int(str(call.ty.dtype).partition("x")[2] or 1)
    if lanes % 2:
        total = _sum(call, lambda number: number.astype("int64"))
        return tirx.shift_right(total, tirx.const(UPPER, "int64")).astype("int32")
    signed, unsigned = f"int64x{lanes // 2}", f"uint64x{lanes // 2}"
    half = tirx.const(UPPER, signed)
    swapped = [lane ^ 1 for lane in range(lanes)]

    def extended(v: Expr) -> Expr:
        return tirx.shift_right(tirx.shift_left(tirx.reinterpret(signed, v), half), half)

    even = _sum(call, extended)
    odd = _sum(call, lambda v: extended(tirx.Shuffle([v], swapped)))
    low = tirx.shift_right(tirx.reinterpret(unsigned, even), tirx.const(UPPER, unsigned))
    high = tirx.bitwise_and(tirx.reinterpret(unsigned, odd), tirx.const(2**64 - 2**UPPER, unsigned))
    return tirx.reinterpret(call.ty.dtype, tirx.bitwise_or(low, high))


def _sum(call: Expr, widen: Callable[[Expr], Expr]) -> Expr:
    wide = [widen(number) for number in call.args]
    return functools.reduce(operator.add, map(operator.mul, wide[::2], wide[1::2]))


add_operation(_NAME, upper_half.__doc__, _lower)
