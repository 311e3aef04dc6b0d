"""`n2uq`: thresholds are learned, levels stay uniform (2111.14826)."""

import torch
from torch import Tensor, nn

from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_activation, register_weight
from hawq.quantizers.staircase import StaircaseActivation
from hawq.quantizers.surrogates import substitute
from hawq.quantizers.weight import WeightQuantizer, channel_floor

__all__ = ["N2uqActivation", "N2uqWeight"]


@register_activation("n2uq")
class N2uqActivation(StaircaseActivation):
    """Learn where the steps begin and how wide each is: T_j = start + w_1 + .. + w_(j-1) + w_j / 2.

    Codes are all that b bits hold, unsigned where no value is negative. The gradient to x is 1 / w_j, in steps, while
    x crosses step j (the generalised straight-through estimator).
    """

    widths = range(2, 5)

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        super().__init__(bits, grid, options)
        self.start = nn.Parameter(torch.zeros(()))  # where the corner of code 0 lies

    def code_limits(self) -> tuple[int, int]:
        """Return the lowest and highest code of b bits."""
        return (
            (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1) if self.may_be_negative else (0, (1 << self.bits) - 1)
        )

    def corners(self) -> Tensor:
        """Return the corners, moved by the start."""
        return super().corners() + self.start


@register_weight("n2uq")
class N2uqWeight(WeightQuantizer):
    """Quantize to 2^b evenly spaced levels, none at zero, over a range that fills them evenly (section 3.3).

    With m = mean|w| and r = m (2^b - 1) / 2^(b-1), a weight is clipped to +-r and rounded to the nearest of the
    odd multiples of r / (2^b - 1) = m / 2^(b-1). The gradient is 1 where |w| <= r, else 0; m has none.
    """

    widths = range(2, 5)

    def row_scale(self, rows: Tensor) -> Tensor:
        """Return m / 2^(b-1), float32, (R,)."""
        return channel_floor(rows.detach().abs().mean(1)) / (1 << (self.bits - 1))

    def quantize(self, rows: Tensor) -> Tensor:
        """Return scale * k, k odd, -(2^b - 1) .. 2^b - 1."""
        scale, top = self.row_scale(rows)[:, None], (1 << self.bits) - 1
        clipped = (rows / scale).clamp(-top, top)
        odd = 2 * torch.round((clipped + top) / 2) - top
        return substitute(odd * scale, clipped * scale)
