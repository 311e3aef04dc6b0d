"""Learn the gains in front of weights that are small integers (1909.13863)."""

from abc import abstractmethod

from torch import Tensor, nn

from hawq.quantizers.gradients import scale_gradient
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.weight import WeightQuantizer, channel_floor

__all__ = ["GainedWeight"]


class GainedWeight(WeightQuantizer):
    """Quantize weights to gain * k(w), k integers; the gain of every row is learned.

    Gains are the magnitudes of the parameters, at least 2^-16 of the layer's largest.
    """

    def __init__(self, bits: int, weight: Tensor, options: QuantOptions) -> None:
        super().__init__(bits, weight, options)
        self.gain = nn.Parameter(self.start(self.rows(weight.detach())))

    @abstractmethod
    def start(self, rows: Tensor) -> Tensor:
        """Return the gains to begin with, (R,), of rows of weights, (R, n)."""

    @abstractmethod
    def integers(self, rows: Tensor) -> Tensor:
        """Return k(w), float32, (R, n), with the gradients of the method."""

    def row_scale(self, rows: Tensor) -> Tensor:
        """Return the gains, float32, (R,)."""
        return self._positive().detach()

    def quantize(self, rows: Tensor) -> Tensor:
        """Return gain * k(w); the gradient of a gain, the sum of k, is scaled as `step_gradient` says."""
        gain = scale_gradient(self._positive(), self.gradient_factor(rows))
        return gain[:, None] * self.integers(rows)

    def _positive(self) -> Tensor:
        return channel_floor(self.gain.abs())
