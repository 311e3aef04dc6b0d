"""Let every step of a staircase have a width of its own: what FATNN (2008.05101) and N2UQ (2111.14826) learn.

A staircase with corners d_0 < d_1 < .. < d_n counts the steps that lie below x, each with its middle as threshold:

    y(x) = sum_j round(clip((x - d_(j-1)) / (d_j - d_(j-1)), 0, 1))

Its gradients, to x and to the corners, are those of the same sum without the rounding: a polygon through the points
(d_j, j).
"""

import itertools
import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from hawq.quantizers.gradients import scale_gradient
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.threshold import ThresholdActivation, reached

__all__ = ["StaircaseActivation", "corners_of", "middles", "staircase"]

_SMALLEST = 2.0**-24
"""Of learned scales, which are magnitudes of parameters, and of the widest step."""

_NARROWEST = 2.0**-12
"""Of a step, in widths of the widest: float32 tells its corners apart."""


def middles(corners: Tensor) -> Tensor:
    """Return the thresholds (d_(j-1) + d_j) / 2, (..., n), of corners (..., n + 1)."""
    return (corners[..., :-1] + corners[..., 1:]) / 2


class _Staircase(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, value: Tensor, corners: Tensor
    ) -> Tensor:
        ctx.save_for_backward(value, corners)
        return reached(value, middles(corners))

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, Tensor]:
        value, corners = ctx.saved_tensors  # type: ignore[attr-defined]
        step, to_value = reached(value, corners, strictly=True), torch.zeros_like(value)
        to_corners = torch.zeros_like(corners)
        for j, (left, right) in enumerate(itertools.pairwise(corners.unbind(-1))):
            slope = (step == j + 1) * grad / (right - left)
            to_value += slope
            risen = (slope * (value - left)).sum_to_size(left.shape) / (right - left)
            to_corners[..., j] += risen - slope.sum_to_size(left.shape)
            to_corners[..., j + 1] -= risen
        return to_value, to_corners


def staircase(value: Tensor, corners: Tensor) -> Tensor:
    """Return the number of steps whose middles x has reached, 0..n, with the gradients of the polygon.

    In step j, where d_(j-1) < x <= d_j and w = d_j - d_(j-1), the polygon is j - 1 + u with u = (x - d_(j-1)) / w. Its
    derivative to x is 1/w, to d_(j-1) it is -(1 - u)/w, to d_j it is -u/w; elsewhere there is none.

    Args:
        value: x, float32.
        corners: d, (..., n + 1), rising; without their last dimension they broadcast to x.
    """
    return _Staircase.apply(value, corners)  # type: ignore[no-any-return]


def corners_of(widths: Tensor, lo: int) -> Tensor:
    """Return the corners of a staircase, (..., n + 1), that of code 0 at zero.

    Args:
        widths: of the steps, (..., n); their magnitudes count, at least 2^-12 of the widest.
        lo: code below the first step, 0 or below.
    """
    widths = widths.abs()
    floor = widths.detach().amax(-1, keepdim=True).clamp(min=_SMALLEST) * _NARROWEST
    sums = torch.cumsum(torch.maximum(widths, floor), -1)
    corners = torch.cat([torch.zeros_like(sums[..., :1]), sums], -1)
    return corners - corners[..., -lo : 1 - lo]


class StaircaseActivation(ThresholdActivation):
    """Learn the widths of the steps between codes lo..hi, and the scale of the codes.

    The calibration starts with equal steps of LSQ's size, 2 mean|x| / sqrt(hi), a corner at every code, and with the
    scale that fits them best, <x, y> / <y, y>; both are means over its batches. Gradients of what is learned are
    multiplied by the factor that `step_gradient` names; with LSQ's, 1 / sqrt(values of an image * hi), one learning
    rate serves weights and thresholds.
    """

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        super().__init__(bits, grid, options)
        self.lo, self.hi = self.code_limits()
        self.step_widths = nn.Parameter(torch.ones(self.hi - self.lo))
        self.gain = nn.Parameter(torch.ones(()))

    @abstractmethod
    def code_limits(self) -> tuple[int, int]:
        """Return the lowest code, 0 or below, and the highest."""

    def corners(self) -> Tensor:
        """Return the corners, float32, (hi - lo + 1,), rising."""
        return corners_of(self.step_widths, self.lo)

    def calibrate(self, value: Tensor) -> None:
        """Take in a batch: the width of its steps and the scale that fits it."""
        width = 2 * value.abs().mean() / math.sqrt(self.hi)
        self._average(self.step_widths, width.expand_as(self.step_widths))
        code = reached(value, self.thresholds()) + self.lo
        self._average(self.gain, (value * code).sum() / (code * code).sum().clamp(min=1))

    def thresholds(self) -> Tensor:
        """Return the middles of the steps."""
        return middles(self.corners().detach())

    def codes(self) -> Tensor:
        """Return lo..hi."""
        return torch.arange(self.lo, self.hi + 1)

    def step(self) -> Tensor:
        """Return the learned scale."""
        return self._scale().detach()

    def quantize(self, value: Tensor) -> Tensor:
        """Return scale * (lo + y(x)); the gradient of the scale is the code."""
        factor = self.gradient_factor(value, self.hi)
        code = staircase(value, scale_gradient(self.corners(), factor)) + self.lo
        return code * scale_gradient(self._scale(), factor)

    def _scale(self) -> Tensor:
        return self.gain.abs().clamp(min=_SMALLEST)
