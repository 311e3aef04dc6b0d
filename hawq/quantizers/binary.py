"""Quantize activations to one bit: the sign of x - t, times one scale per tensor (1603.05279, 2003.03488)."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from hawq.quantizers.gradients import scale_gradient
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.surrogates import SignGradient, binary_sign
from hawq.quantizers.threshold import ThresholdActivation

__all__ = ["BinaryActivation"]


class BinaryActivation(ThresholdActivation):
    """Quantize to s * sign(x - t), codes -1 and 1; x = t counts as +1.

    Where values may be negative t is 0. Behind a ReLU every sign would be the same: there t is learned, from the mean
    of the calibration on (ReActNet's RSign). What follows sees x - t, and takes the shift into its bias. The scale
    begins at mean|x - t|, XNOR's for t = 0.

    Gradients: to x that of the sign at (x - t) / s, in the form that `sign_gradient` names; to t its negative sum,
    times the factor that `step_gradient` names.
    """

    widths = range(1, 2)

    threshold: Tensor

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        super().__init__(bits, grid, options)
        self.gradient = SignGradient(options.sign_gradient)
        if self.may_be_negative:
            self.register_buffer("threshold", torch.zeros(()))
        else:
            self.threshold = nn.Parameter(torch.zeros(()))

    @abstractmethod
    def magnitude(self) -> Tensor:
        """Return the tensor that holds the scale."""

    def calibrate(self, value: Tensor) -> None:
        """Take in a batch: its mean, if there is a threshold, and the magnitude of what is left."""
        if not self.may_be_negative:
            self._average(self.threshold, value.mean())
        self._average(self.magnitude(), self.deviation(value))

    def deviation(self, value: Tensor) -> Tensor:
        """Return mean|x - t|: the s with the least error of s * sign(x - t) to x - t."""
        return (value - self.threshold).abs().mean()

    def thresholds(self) -> Tensor:
        """Return t, (1,)."""
        return self.threshold.detach().reshape(1)

    def codes(self) -> Tensor:
        """Return -1 and 1."""
        return torch.tensor([-1, 1])

    def step(self) -> Tensor:
        """Return the scale."""
        return self._scale().detach()

    def quantize(self, value: Tensor) -> Tensor:
        """Return s * sign(x - t)."""
        factor = self.gradient_factor(value)
        centred = value - scale_gradient(self.threshold, factor)
        return scale_gradient(self._scale(), factor) * binary_sign(centred / self.step(), self.gradient)

    def _scale(self) -> Tensor:
        return self.magnitude().abs().clamp(min=2.0**-24)  # with it ratios of scales stay dyadic numbers
