"""`xnor`: the signs of weights and activations, times their mean magnitude (1603.05279)."""

import torch
from torch import Tensor

from hawq.quantizers.binary import BinaryActivation
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_activation, register_weight
from hawq.quantizers.surrogates import SignGradient, binary_sign, substitute
from hawq.quantizers.weight import WeightQuantizer, channel_floor

__all__ = ["XnorActivation", "XnorWeight"]


@register_weight("xnor")
class XnorWeight(WeightQuantizer):
    """Quantize a row to alpha sign(w), alpha = mean|w| over its n weights.

    Gradient (section 3.1): dL/dw = dL/dq (1/n + alpha) where |w| < 1, dL/dq / n elsewhere.
    """

    widths = range(1, 2)

    def row_scale(self, rows: Tensor) -> Tensor:
        """Return alpha, float32, (R,)."""
        return channel_floor(rows.detach().abs().mean(1))

    def quantize(self, rows: Tensor) -> Tensor:
        """Return alpha sign(w)."""
        signs = self.row_scale(rows)[:, None] * binary_sign(rows, SignGradient.STE)
        return substitute(signs, rows / rows.shape[1] + signs)


@register_activation("xnor")
class XnorActivation(BinaryActivation):
    """Follow the magnitude of the tensor: s moves with every training batch, as the range of `minmax` does.

    The paper takes s from each image, at each position. A scale that depends on the data has no place in an integer
    program; one per tensor is the exact alternative.
    """

    mean_magnitude: Tensor

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        super().__init__(bits, grid, options)
        self.register_buffer("mean_magnitude", torch.ones(()))

    def observe(self, value: Tensor) -> None:
        """Move the magnitude towards this batch's; momentum -1 keeps the calibration's."""
        super().observe(value)
        momentum = self.options.act_range_momentum
        if momentum >= 0:
            self.mean_magnitude.lerp_(self.deviation(value), 1 - momentum)

    def magnitude(self) -> Tensor:
        """Return the running mean|x - t|."""
        return self.mean_magnitude
