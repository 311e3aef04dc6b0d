"""`lsq+`: LSQ with a learned offset for tensors that go negative, and a start that heeds outliers (2004.09576)."""

import torch
from torch import Tensor, nn

from hawq.quantizers.gradients import scale_gradient
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.lsq import LsqActivation, LsqWeight, quantize_by_step
from hawq.quantizers.mse import best_range
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_activation, register_weight

__all__ = ["LsqPlusActivation", "LsqPlusWeight"]


@register_activation("lsq+")
class LsqPlusActivation(LsqActivation):
    """Learn the step of a tensor and, where it goes negative, the offset at which its lowest code lies.

    Both begin at the range that quantizes the batches of the calibration with the least squared error, the mean over
    the batches. Signed tensors have unsigned codes with a zero point, whatever `asymmetric` says; it is the offset in
    steps, rounded and kept inside the codes, in training as in the integer program.
    """

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        super().__init__(bits, grid, options)
        self.offset: nn.Parameter | None = None
        if grid is not ActivationGrid.UNSIGNED:
            self.grid = ActivationGrid.AFFINE
            self.offset = nn.Parameter(torch.zeros(()))

    def calibrate(self, value: Tensor) -> None:
        """Take in the range of least squared error of a batch."""
        extremes, shares = best_range(value, self.bits, self.grid)
        low, high = extremes * shares
        self._average(self.step_size, self.grid.place(low, high, self.bits)[0])
        if self.offset is not None:
            self._average(self.offset, low.clamp(max=0))

    @torch.no_grad()
    def begin_at(self, scale: Tensor, lowest: Tensor) -> None:
        """Take a scale and the real value of the lowest code, scalars, instead of a calibration."""
        self.step_size.copy_(scale)
        if self.offset is not None:
            self.offset.copy_(lowest)
        self.seen.clamp_(min=1)

    def quantize(self, value: Tensor) -> Tensor:
        """Return the fake-quantized value; both gradients are scaled as `step_gradient` says."""
        if self.offset is None:
            return super().quantize(value)
        lo, hi = self.grid.codes(self.bits)
        factor = self.gradient_factor(value, hi)
        step, offset = scale_gradient(self._positive(), factor), scale_gradient(self.offset, factor)
        return quantize_by_step(value, step, lo, hi, offset, self.scale_and_zero_point()[1])

    def scale_and_zero_point(self) -> tuple[Tensor, int]:
        """Return the step, a positive float32 scalar, and the zero point."""
        step = self._positive().detach()
        if self.offset is None:
            return step, 0
        lo, hi = self.grid.codes(self.bits)
        return step, int(torch.nan_to_num(torch.round(-self.offset.detach() / step)).clamp(lo, hi))


@register_weight("lsq+")
class LsqPlusWeight(LsqWeight):
    """Learn steps as `lsq` does, from a start at which three standard deviations have codes."""

    def start(self, rows: Tensor) -> Tensor:
        """Return the steps to begin with, max |mean +- 3 std| / 2^(b-1), (R,), of rows of weights, (R, n)."""
        return (rows.mean(1).abs() + 3 * rows.std(1, correction=0)) / (1 << (self.bits - 1))
