"""`mse`: the range is the one with the least squared error (1810.05723 solves it for two densities)."""

from collections.abc import Callable

import torch
from torch import Tensor

from hawq.quantizers.fake import fake_quantize
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.minmax import MinMaxActivation, MinMaxWeight
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.percentile import thinned
from hawq.quantizers.registry import register_activation, register_weight
from hawq.quantizers.weight import scale_over, weight_limit

__all__ = ["RATIOS", "MseActivation", "MseWeight", "best_range", "least_error"]

RATIOS = tuple(2.0 ** (-k / 8) for k in range(41))
"""Shares of the whole range that are tried, 1 to 1/32. A clip is met to 4.5%, where the error is flat: it exceeds the
least one by a percent."""


def least_error(rows: Tensor, quantized: Callable[[float], Tensor]) -> Tensor:
    """Return, for every row, the ratio r of RATIOS with the least sum of (q_r(v) - v)^2; the larger one of equals.

    Args:
        rows: float, (R, n).
        quantized: returns the rows quantized over r times their whole range, given r.

    Returns:
        Float32, (R,).
    """
    errors = torch.stack([(quantized(ratio) - rows).square_().sum(1) for ratio in RATIOS])
    return torch.tensor(RATIOS, device=rows.device)[errors.argmin(0)]


def best_range(value: Tensor, bits: int, grid: ActivationGrid) -> tuple[Tensor, Tensor]:
    """Return the extremes of a tensor and the share of each over which codes err least, (2,) both, low before high.

    Codes with a zero point have two shares, the second one sought after the first; others have one, twice. Errors are
    those of 65,000 values, evenly spaced.

    Args:
        value: float, any shape.
        bits: of the codes.
        grid: where they lie.
    """
    low, high = torch.aminmax(value)
    sample, codes = thinned(value)[None], grid.codes(bits)

    def quantized(below: Tensor | float, above: Tensor | float) -> Tensor:
        return fake_quantize(sample, *grid.place(low * below, high * above, bits), *codes)

    if grid is ActivationGrid.AFFINE:
        above = least_error(sample, lambda ratio: quantized(1.0, ratio))[0]
        below = least_error(sample, lambda ratio: quantized(ratio, above))[0]
    else:
        above = below = least_error(sample, lambda ratio: quantized(ratio, ratio))[0]
    return torch.stack([low, high]), torch.stack([below, above])


@register_activation("mse")
class MseActivation(MinMaxActivation):
    """Clip a running range at the shares of its ends that quantize with the least squared error.

    The calibration finds range and shares, each the mean over its batches; training moves the range as `minmax` does
    and keeps the shares, so that a step costs what it costs there.
    """

    carries_widths = False

    shares: Tensor

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        super().__init__(bits, grid, options)
        self.register_buffer("shares", torch.ones(2))

    def calibrate(self, value: Tensor) -> None:
        """Take in the extremes and the best shares of a batch."""
        (low, high), shares = best_range(value, self.bits, self.grid)
        for kept, found in ((self.low, low), (self.high, high), (self.shares, shares)):
            self._average(kept, found)

    def scale_and_zero_point(self) -> tuple[Tensor, int]:
        """Return the scale, a positive float32 scalar, and the zero point."""
        below, above = self.shares
        return self.grid.place(self.low * below, self.high * above, self.bits)


@register_weight("mse")
class MseWeight(MinMaxWeight):
    """Clip a row of weights at the share of their largest magnitude that quantizes with the least squared error.

    The share is found once, when the quantizer is built; the magnitude is that of the present weights.
    """

    ratio: Tensor

    def __init__(self, bits: int, weight: Tensor, options: QuantOptions) -> None:
        super().__init__(bits, weight, options)
        rows = self.rows(weight.detach())
        top, limit = rows.abs().amax(dim=1), weight_limit(bits)
        found = least_error(rows, lambda r: fake_quantize(rows, scale_over(top * r, bits)[:, None], 0, -limit, limit))
        self.register_buffer("ratio", found)

    def limits(self, rows: Tensor) -> Tensor:
        """Return the share of the largest magnitude of each row, (R,)."""
        return super().limits(rows) * self.ratio
