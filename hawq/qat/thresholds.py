"""Move the real thresholds of a quantizer to integers: exactly those integers that reach a threshold have passed it."""

import torch
from torch import Tensor

from hawq.graph import ir
from hawq.integer.arithmetic import code_range
from hawq.integer.ops import ACCUMULATOR_BITS, TensorType
from hawq.quantizers.threshold import Levels

__all__ = ["accumulator_thresholds", "code_thresholds"]

_ALWAYS, _NEVER = code_range(ACCUMULATOR_BITS, signed=True)


def accumulator_thresholds(levels: Levels, scale: Tensor, clamp: ir.Clamp | None) -> dict[str, Tensor]:
    """Return the constants of a Threshold behind a unit: acc * scale_c >= t becomes acc >= ceil(t / scale_c).

    Batch norm is inside the scale and the accumulator's bias. An activation y = min(max(., lo), hi) always reaches
    thresholds up to lo and never those above hi.

    Args:
        levels: of the quantizer.
        scale: of the accumulator, float64, (O,), positive.
        clamp: the unit's activation.
    """
    real = levels.thresholds.double()
    integer = torch.ceil(real / scale[:, None]).clamp(_ALWAYS, _NEVER)
    if clamp is not None and clamp.lo is not None:
        integer[:, real <= clamp.lo] = _ALWAYS
    if clamp is not None and clamp.hi is not None:
        integer[:, real > clamp.hi] = _NEVER
    return _constants(levels, integer)


def code_thresholds(levels: Levels, source: TensorType) -> dict[str, Tensor]:
    """Return the constants of a Threshold on codes: scale * (q - z) >= t becomes q >= ceil(t / scale) + z."""
    integer = torch.ceil(levels.thresholds.double() / source.scale) + source.zero_point
    return _constants(levels, integer.clamp(_ALWAYS, _NEVER)[None])


def _constants(levels: Levels, threshold: Tensor) -> dict[str, Tensor]:
    return {"threshold": threshold.to(torch.int32), "level": levels.codes.to(torch.int32)}
