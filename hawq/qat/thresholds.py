"""Move the real thresholds of a quantizer to integers: exactly those integers that reach a threshold have passed it."""

import torch
from torch import Tensor

from hawq.graph import ir
from hawq.integer.arithmetic import code_range
from hawq.integer.ops import ACCUMULATOR_BITS, TensorType
from hawq.quantizers.threshold import Levels

__all__ = ["accumulator_thresholds", "code_thresholds"]

_ALWAYS, _NEVER = code_range(ACCUMULATOR_BITS, signed=True)


def accumulator_thresholds(levels: Levels, scale: Tensor, bias: Tensor, clamp: ir.Clamp | None) -> dict[str, Tensor]:
    """Return the constants of a Threshold behind a unit of values acc * s_c + b_c: acc >= ceil((t - b_c) / s_c).

    Batch norm is inside scale and bias. With the bias in the threshold it loses nothing; as a code it would be rounded
    to a step of the accumulator, which counts where codes are few. An activation y = min(max(., lo), hi) always
    reaches thresholds up to lo and never those above hi.

    Args:
        levels: of the quantizer.
        scale: of the accumulator, float64, (O,), positive.
        bias: float64, (O,).
        clamp: the unit's activation.
    """
    real = levels.thresholds.double()
    integer = _least_multiple(real - bias[:, None], scale[:, None])
    if clamp is not None and clamp.lo is not None:
        integer[:, real <= clamp.lo] = _ALWAYS
    if clamp is not None and clamp.hi is not None:
        integer[:, real > clamp.hi] = _NEVER
    return _constants(levels, integer)


def code_thresholds(levels: Levels, source: TensorType) -> dict[str, Tensor]:
    """Return the constants of a Threshold on codes: scale * (q - z) >= t becomes q >= ceil(t / scale) + z."""
    scale = torch.tensor([[source.scale]], dtype=torch.float64)
    return _constants(levels, _least_multiple(levels.thresholds.double(), scale) + source.zero_point)


def _least_multiple(real: Tensor, scale: Tensor) -> Tensor:
    """Return the least integer n with n * scale >= t, float64, exactly below 2^52.

    The remainder of a division is exact in floating point, the quotient is not: rounding may take it to an integer
    from either side.
    """
    remainder = torch.fmod(real, scale)  # of the sign of t
    whole = torch.round((real - remainder) / scale)
    return whole + (remainder > 0)


def _constants(levels: Levels, threshold: Tensor) -> dict[str, Tensor]:
    return {"threshold": threshold.clamp(_ALWAYS, _NEVER).to(torch.int32), "level": levels.codes.to(torch.int32)}
