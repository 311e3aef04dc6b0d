"""Prove, from the tensors alone, that no accumulator of a program can overflow, and which float type is exact."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from hawq.errors import HawqError
from hawq.integer.ops import AvgPool2d, Conv2d, Linear, Op, TensorType
from hawq.integer.program import IntegerProgram

__all__ = ["Certificate", "LayerBound", "certify", "partial_sum_bound"]

_ACCUMULATORS = (-(2**31), 2**31 - 2)
"""All of int32 but its highest number, which stands for a threshold that is never reached."""

_FLOAT32_EXACT = 2**24


@dataclass(frozen=True)
class LayerBound:
    """Bound every partial sum of one op, in every order of summation.

    Attributes:
        op: name of the op.
        lo: lowest partial sum, bias included.
        hi: highest partial sum, bias included.
    """

    op: str
    lo: int
    hi: int

    @property
    def fits_int32(self) -> bool:
        """Whether a 32-bit accumulator holds every partial sum, and none equals 2^31 - 1."""
        return _ACCUMULATORS[0] <= self.lo and self.hi <= _ACCUMULATORS[1]

    @property
    def dtype(self) -> torch.dtype:
        """Cheapest float type whose arithmetic is exact for these sums: integers up to 2^24 are exact in float32."""
        return torch.float32 if max(-self.lo, self.hi) <= _FLOAT32_EXACT else torch.float64


@dataclass(frozen=True)
class Certificate:
    """Hold the bounds of every accumulating op of a program."""

    bounds: tuple[LayerBound, ...]

    def to_json(self) -> list[dict[str, object]]:
        """Return the bounds as JSON rows."""
        return [{**asdict(bound), "exact_in": str(bound.dtype).removeprefix("torch.")} for bound in self.bounds]


def partial_sum_bound(weight: Tensor, bias: Tensor, source: TensorType) -> tuple[int, int]:
    """Return an interval that holds every partial sum of sum((x - zx) * w) + bias.

    A partial sum takes any subset of the products in any order, so its extremes are reached by the products of one
    sign; the range of x - zx, which holds what pads too, is widened to include 0.

    Args:
        weight: codes, int8, (O, ...).
        bias: codes, int32, (O,).
        source: type of the activation x.
    """
    lo, hi = (code - source.zero_point for code in source.range)
    rows = weight.flatten(1).long()
    positive, negative = rows.clamp(min=0).sum(1), rows.clamp(max=0).sum(1)
    low, high = min(lo, 0), max(hi, 0)
    lowest = low * positive + high * negative + bias.long().clamp(max=0)
    highest = high * positive + low * negative + bias.long().clamp(min=0)
    return int(lowest.min()), int(highest.max())


def _bound(op: Op, source: TensorType, constants: dict[str, Tensor]) -> LayerBound | None:
    if isinstance(op, Conv2d | Linear):
        return LayerBound(op.name, *partial_sum_bound(constants["weight"], constants["bias"], source))
    if isinstance(op, AvgPool2d):
        count = op.kernel[0] * op.kernel[1]
        lo, hi = (code - source.zero_point for code in source.range)
        return LayerBound(op.name, min(lo, 0) * count, max(hi, 0) * count)
    return None


def certify(program: IntegerProgram) -> Certificate:
    """Prove that every accumulator of the program fits int32 and stays below 2^31 - 1.

    Raises:
        HawqError: one may not; the message names the op and its interval.
    """
    types = program.types
    bounds: Sequence[LayerBound] = [
        bound
        for op in program.ops
        if (bound := _bound(op, types[op.inputs[0]] if op.inputs else op.out, program.constants(op))) is not None
    ]
    for bound in bounds:
        if not bound.fits_int32:
            raise HawqError(
                f"op {bound.op!r}: partial sums span {bound.lo} .. {bound.hi}, beyond the {_ACCUMULATORS[0]} .. "
                f"{_ACCUMULATORS[1]} an int32 accumulator may hold; use fewer bits for its weights or its input"
            )
    return Certificate(tuple(bounds))
