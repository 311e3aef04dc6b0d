"""State the integer semantics once, as functions on tensors; training, execution and export all call these.

Every formula here is normative (docs/architecture.md, "Integer semantics"): a backend is right when its codes equal
the codes these functions give.
"""

import torch
from torch import Tensor

from hawq.errors import HawqError

__all__ = [
    "MULTIPLIER_BITS",
    "code_range",
    "dyadic",
    "dyadic_shared",
    "fixed_positions",
    "nearest_code",
    "part_bits",
    "quantize",
    "quantize_pixels",
    "requantize",
    "rounding_shift",
]

MULTIPLIER_BITS = 31
"""Significant bits of a dyadic multiplier: 2^30 <= m < 2^31."""

_MAX_SHIFT = 62


def code_range(bits: int, signed: bool) -> tuple[int, int]:
    """Return the lowest and highest code of `bits` bits.

    >>> code_range(4, signed=True), code_range(4, signed=False)
    ((-8, 7), (0, 15))
    """
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def dyadic(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Return the dyadic numbers m / 2^s nearest to `ratio`.

    Args:
        ratio: positive ratios of scales, float64, any shape.

    Returns:
        m, int64, 2^30 <= m < 2^31, and s, int64, 1 <= s <= 62, both of the shape of `ratio`.

    Raises:
        HawqError: a ratio is not positive and finite, or outside [2^-32, 2^30).
    """
    mantissa, exponent = torch.frexp(ratio.double())
    m = torch.round(mantissa * 2.0**MULTIPLIER_BITS).long()
    overflow = m == 1 << MULTIPLIER_BITS  # the mantissa was within half a step of 1
    m = torch.where(overflow, m >> 1, m)
    s = MULTIPLIER_BITS - exponent.long() + torch.where(overflow, -1, 0)
    if not bool(((ratio > 0) & torch.isfinite(ratio) & (s >= 1) & (s <= _MAX_SHIFT)).all()):
        bad = ratio.double().flatten()
        raise HawqError(
            f"a ratio of scales cannot be written as m / 2^s: ratios span {bad.min():.3g} .. {bad.max():.3g}, "
            "allowed are 2^-32 .. 2^30; check the ranges of the layer (NaN, zero or runaway activations?)"
        )
    return m, s


def dyadic_shared(ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Return multipliers for several ratios over one shift: ratios[i] ~ m[i] / 2^s.

    Args:
        ratios: positive ratios, float64, (n,).

    Returns:
        m, int64, (n,), the largest in [2^30, 2^31), and s, int64, (1,).
    """
    _, s = dyadic(ratios.double().max().reshape(1))
    return torch.round(ratios.double() * torch.pow(2.0, s.double())).long().clamp(max=(1 << MULTIPLIER_BITS) - 1), s


def part_bits(bits: int) -> int:
    """Return k, the bits of an interpolation weight: codes of `bits` bits times (2^k)^2 stay below 2^30.

    >>> part_bits(8), part_bits(16)
    (11, 7)
    """
    return 11 if bits <= 8 else 7


def fixed_positions(positions: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return where interpolation reads: whole positions, and what is left in units of 2^-bits, to the nearest.

    A weight is off by at most 2^-(bits+1), so a value interpolated along both axes is off by at most 2^-bits times the
    largest difference of neighbours, half a step of the output aside.

    Args:
        positions: p >= 0, float64, (n,).
        bits: k.

    Returns:
        floor(p), and rint((p - floor(p)) * 2^k), 0 .. 2^k, int32, (n,) each.
    """
    whole = torch.floor(positions)
    return whole.int(), torch.round((positions - whole) * 2.0**bits).int()


def rounding_shift(value: Tensor, shift: Tensor | int) -> Tensor:
    """Return (value + 2^(shift-1)) >> shift in int64: division by 2^shift, halves rounded up.

    >>> rounding_shift(torch.tensor([-6, -2, 2, 6]), 2)  # -1.5, -0.5, 0.5, 1.5
    tensor([-1,  0,  1,  2])
    """
    shift = torch.as_tensor(shift, dtype=torch.int64, device=value.device)
    return (value.long() + (torch.ones_like(shift) << (shift - 1))) >> shift


def requantize(accumulator: Tensor, multiplier: Tensor, shift: Tensor, zero_point: int, lo: int, hi: int) -> Tensor:
    """Return clamp(((acc * m + 2^(s-1)) >> s) + zero_point, lo, hi) as int32 codes.

    Args:
        accumulator: integers below 2^31 in magnitude, any shape.
        multiplier: m, broadcastable to `accumulator`.
        shift: s, broadcastable to `accumulator`.
        zero_point: of the output codes.
        lo: lowest code (a ReLU raises it to the zero point).
        hi: highest code (a ReLU6 lowers it).
    """
    scaled = rounding_shift(accumulator.long() * multiplier.long(), shift.long())
    return (scaled + zero_point).clamp(lo, hi).int()


def nearest_code(
    value: Tensor, scale: Tensor | float, zero_point: int, lo: int, hi: int, out: Tensor | None = None
) -> Tensor:
    """Return clamp(rint(value / scale) + zero_point, lo, hi), still in the float type of `value`.

    The division is IEEE in the type of `value`, ties go to even. NaN has no code; callers check their inputs.

    Args:
        value: real values, any shape.
        scale: positive, broadcastable to `value`.
        zero_point: of the codes.
        lo: lowest code.
        hi: highest code.
        out: where to write the codes, of the shape and type of `value`; by default a new tensor.
    """
    steps = torch.div(value, scale, out=out).round_()
    return (steps.add_(zero_point) if zero_point else steps).clamp_(lo, hi)


def quantize(value: Tensor, scale: Tensor | float, zero_point: int, lo: int, hi: int) -> Tensor:
    """Return `nearest_code` as int32 codes; the arguments are the same."""
    return nearest_code(value, scale, zero_point, lo, hi).int()


def quantize_pixels(pixels: Tensor, multiplier: Tensor, offset: Tensor, shift: Tensor, lo: int, hi: int) -> Tensor:
    """Return clamp((p * m_c + b_c + 2^(s-1)) >> s, lo, hi): raw pixels to codes, mean and std folded in.

    Args:
        pixels: uint8, (N, C, H, W).
        multiplier: m_c, int64, (C,).
        offset: b_c, int64, (C,); holds -mean/std and the zero point at 2^-s.
        shift: s, int64, (1,).
        lo: lowest code.
        hi: highest code.
    """
    channel = (1, -1, 1, 1)
    value = pixels.long() * multiplier.long().view(channel) + offset.long().view(channel)
    return rounding_shift(value, shift).clamp(lo, hi).int()
