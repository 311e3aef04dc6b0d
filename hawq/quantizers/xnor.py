"""`xnor`: the signs of weights and activations, times their mean magnitude (1603.05279)."""

import torch
from torch import Tensor

from hawq.quantizers.binary import BinaryActivation
from hawq.quantizers.gain import channel_rows
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_activation, register_weight
from hawq.quantizers.surrogates import SignGradient, binary_sign, substitute
from hawq.quantizers.weight import WeightQuantizer, channel_floor, per_channel

__all__ = ["XnorActivation", "XnorWeight"]


@register_weight("xnor")
class XnorWeight(WeightQuantizer):
    """Quantize a channel to alpha_c sign(w), alpha_c = mean|w_c| over its n weights.

    Gradient (section 3.1): dL/dw = dL/dq (1/n + alpha_c) where |w| < 1, dL/dq / n elsewhere.
    """

    widths = range(1, 2)

    def scale(self, weight: Tensor) -> Tensor:
        """Return alpha, float32, (O,)."""
        return channel_floor(channel_rows(weight, self.options).abs().mean(1)).expand(len(weight))

    def quantize(self, weight: Tensor) -> Tensor:
        """Return alpha_c sign(w)."""
        alpha, sign = per_channel(self.scale(weight), weight), binary_sign(weight, SignGradient.STE)
        count = channel_rows(weight, self.options).shape[1]
        return substitute(alpha * sign, weight / count + alpha * sign)


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
