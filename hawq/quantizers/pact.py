"""`pact`: the value at which an activation is clipped is learned (1805.06085)."""

import torch
from torch import Tensor, nn

from hawq.quantizers.activation import UniformActivation
from hawq.quantizers.fake import fake_quantize
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.mse import best_range
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_activation

__all__ = ["PactActivation", "clip_at"]


def clip_at(value: Tensor, clip: Tensor, lo: int, hi: int) -> Tensor:
    """Return x clipped to [c lo / hi, c]; a value at c or above gives its gradient to c, not to x.

    With unsigned codes it is the paper's clip to [0, c]. With signed ones the range ends where the codes do, so that
    a value below it moves c by lo / hi.

    Args:
        value: x, float32, any shape.
        clip: c, positive, float32, a scalar.
        lo: lowest code, 0 or below.
        hi: highest code.
    """
    bottom = clip * (lo / hi)
    clipped = torch.where(value < clip, value, clip)
    return torch.where(clipped >= bottom, clipped, bottom)


@register_activation("pact")
class PactActivation(UniformActivation):
    """Learn the value c that the highest code stands for, with dy/dc = 1 where x >= c and else 0.

    It begins at the range that quantizes the batches of the calibration with the least squared error, the mean over
    the batches. The value is the magnitude of the parameter, so that it stays positive. A signed tensor has symmetric
    codes.
    """

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        super().__init__(bits, grid.without_zero_point(), options)
        self.clip = nn.Parameter(torch.ones(()))

    def calibrate(self, value: Tensor) -> None:
        """Take in the range of least squared error of a batch."""
        extremes, shares = best_range(value, self.bits, self.grid)
        low, high = extremes * shares
        scale, _ = self.grid.place(low, high, self.bits)
        self._average(self.clip, scale * self.grid.codes(self.bits)[1])

    def quantize(self, value: Tensor) -> Tensor:
        """Return the fake-quantized value; within the range the gradient passes rounding unchanged."""
        lo, hi = self.grid.codes(self.bits)
        return fake_quantize(clip_at(value, self.clip.abs(), lo, hi), *self.scale_and_zero_point(), lo, hi)

    def scale_and_zero_point(self) -> tuple[Tensor, int]:
        """Return c over the highest code, a positive float32 scalar, and 0."""
        clip = self.clip.detach().abs()
        return self.grid.place(-clip, clip, self.bits)
