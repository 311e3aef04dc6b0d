"""Place the codes of a uniform quantizer over a range of real values."""

from enum import Enum

import torch
from torch import Tensor

from hawq.integer.arithmetic import code_range

__all__ = ["ActivationGrid"]

_SMALLEST_SPAN = 1e-6


class ActivationGrid(Enum):
    """Place the codes of b bits over a range [low, high].

    UNSIGNED: zero point 0, scale = high / (2^b - 1); for tensors that are never negative.
    SYMMETRIC: signed, zero point 0, scale = max(|low|, |high|) / (2^(b-1) - 1).
    AFFINE: unsigned with a zero point, scale = (high - low) / (2^b - 1), zero point = rint(-low / scale); the range is
    widened to hold 0, so that zero padding has a code.
    """

    UNSIGNED = "unsigned"
    SYMMETRIC = "symmetric"
    AFFINE = "affine"

    @property
    def signed(self) -> bool:
        """Whether the codes are signed."""
        return self is ActivationGrid.SYMMETRIC

    def without_zero_point(self) -> "ActivationGrid":
        """Return the grid of the same tensors with zero point 0."""
        return ActivationGrid.UNSIGNED if self is ActivationGrid.UNSIGNED else ActivationGrid.SYMMETRIC

    def codes(self, bits: int) -> tuple[int, int]:
        """Return the lowest and highest code."""
        return code_range(bits, self.signed)

    def place(self, low: Tensor, high: Tensor, bits: int) -> tuple[Tensor, int]:
        """Return the scale, a float32 scalar, and the zero point.

        Args:
            low: scalar.
            high: scalar.
            bits: 2..16.
        """
        steps = self.codes(bits)[1]
        if self is ActivationGrid.UNSIGNED:
            return high.clamp(min=_SMALLEST_SPAN) / steps, 0
        if self is ActivationGrid.SYMMETRIC:
            return torch.maximum(low.abs(), high.abs()).clamp(min=_SMALLEST_SPAN) / steps, 0
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = (high - low).clamp(min=_SMALLEST_SPAN) / steps
        return scale, int(torch.round(torch.nan_to_num(-low / scale)).clamp(0, steps))
