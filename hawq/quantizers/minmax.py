"""`minmax`: the range is all that was seen (2011.10680, section 2)."""

import torch
from torch import Tensor

from hawq.quantizers.activation import UniformActivation
from hawq.quantizers.fake import fake_quantize
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_activation, register_weight
from hawq.quantizers.weight import WeightQuantizer, scale_over, weight_limit

__all__ = ["MinMaxActivation", "MinMaxWeight"]


@register_activation("minmax")
class MinMaxActivation(UniformActivation):
    """Keep a running range.

    A calibration keeps the minimum and maximum of its batches. Training moves them: low <- momentum * low +
    (1 - momentum) * min(batch), and high alike; momentum -1 goes on with the minimum and maximum.
    """

    everywhere = True
    carries_widths = True

    low: Tensor
    high: Tensor

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        super().__init__(bits, grid, options)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def range_of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest value that must have a code, scalars."""
        low, high = torch.aminmax(value)
        return low, high

    def set_range(self, low: float, high: float) -> None:
        """Take a range that is known without images."""
        self.low.fill_(low)
        self.high.fill_(high)
        self.seen.fill_(1)

    def calibrate(self, value: Tensor) -> None:
        """Widen the range to hold this batch; the first one sets it."""
        self._move(self.range_of(value), momentum=-1)

    def observe(self, value: Tensor) -> None:
        """Move the range towards that of this batch."""
        self._move(self.range_of(value), self.options.act_range_momentum)
        self.seen.clamp_(min=1)

    def _move(self, found: tuple[Tensor, Tensor], momentum: float) -> None:
        low, high = found
        if not bool(self.seen):
            self.low.copy_(low)
            self.high.copy_(high)
        elif momentum < 0:
            self.low.copy_(torch.minimum(self.low, low))
            self.high.copy_(torch.maximum(self.high, high))
        else:
            self.low.lerp_(low, 1 - momentum)
            self.high.lerp_(high, 1 - momentum)

    def scale_and_zero_point(self) -> tuple[Tensor, int]:
        """Return the scale, a positive float32 scalar, and the zero point."""
        return self.grid.place(self.low, self.high, self.bits)


@register_weight("minmax")
class MinMaxWeight(WeightQuantizer):
    """Let the largest magnitude of a row be its largest code: scale = max |w| / (2^(b-1) - 1)."""

    everywhere = True

    def limits(self, rows: Tensor) -> Tensor:
        """Return the largest magnitude of each row, (R, n), that is not clipped, (R,)."""
        return rows.abs().amax(dim=1)

    def row_scale(self, rows: Tensor) -> Tensor:
        """Return the scales, float32, (R,), of rows (R, n)."""
        return scale_over(self.limits(rows.detach()), self.bits)

    def quantize(self, rows: Tensor) -> Tensor:
        """Return scale * code; the gradient passes rounding and clipping unchanged."""
        limit = weight_limit(self.bits)
        return fake_quantize(rows, self.row_scale(rows)[:, None], 0, -limit, limit)
