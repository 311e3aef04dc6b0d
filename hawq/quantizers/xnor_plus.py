"""`xnor++`: the scales of binary weights and activations are learned (1909.13863)."""

import torch
from torch import Tensor, nn

from hawq.quantizers.binary import BinaryActivation
from hawq.quantizers.gain import GainedWeight
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_activation, register_weight
from hawq.quantizers.surrogates import SignGradient, binary_sign

__all__ = ["XnorPlusActivation", "XnorPlusWeight"]


@register_weight("xnor++")
class XnorPlusWeight(GainedWeight):
    """Quantize a row to gain * sign(w); gains begin at mean|w|.

    The gradient to a weight is the gain where |w| < 1, else 0.
    """

    widths = range(1, 2)

    def start(self, rows: Tensor) -> Tensor:
        """Return mean|w|, (R,), of rows of weights, (R, n)."""
        return rows.abs().mean(1)

    def integers(self, rows: Tensor) -> Tensor:
        """Return sign(w)."""
        return binary_sign(rows, SignGradient.STE)


@register_activation("xnor++")
class XnorPlusActivation(BinaryActivation):
    """Learn the scale of the tensor, from the calibration's mean|x - t| on; its gradient is the sum of the signs."""

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        super().__init__(bits, grid, options)
        self.gain = nn.Parameter(torch.ones(()))

    def magnitude(self) -> Tensor:
        """Return the parameter; its magnitude is the scale."""
        return self.gain
