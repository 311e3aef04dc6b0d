"""Learn a gain per output channel in front of weights that are small integers (1909.13863)."""

from abc import abstractmethod

from torch import Tensor, nn

from hawq.quantizers.gradients import scale_gradient
from hawq.quantizers.lsq import step_gradient_scale
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.weight import WeightQuantizer, channel_floor, per_channel

__all__ = ["GainedWeight", "channel_rows"]


def channel_rows(weight: Tensor, options: QuantOptions) -> Tensor:
    """Return the weights that share a scale as rows, float32, (O, n), or (1, n) where `channel_wise` is off."""
    rows = weight.detach().float().flatten(1)
    return rows if options.channel_wise else rows.reshape(1, -1)


class GainedWeight(WeightQuantizer):
    """Quantize weights to gain_c * k(w), k integers; the gain of every output channel is learned.

    Gains are the magnitudes of the parameters, at least 2^-16 of the layer's largest. Where `channel_wise` is off the
    layer shares one.
    """

    def __init__(self, bits: int, weight: Tensor, options: QuantOptions) -> None:
        super().__init__(bits, weight, options)
        self.gain = nn.Parameter(self.start(channel_rows(weight, options)))

    @abstractmethod
    def start(self, rows: Tensor) -> Tensor:
        """Return the gains to begin with, (R,), of rows of weights, (R, n)."""

    @abstractmethod
    def integers(self, weight: Tensor) -> Tensor:
        """Return k(w), float32, (O, ...), with the gradients of the method."""

    def scale(self, weight: Tensor) -> Tensor:
        """Return the gains, float32, (O,)."""
        return self._positive().detach().expand(len(weight))

    def quantize(self, weight: Tensor) -> Tensor:
        """Return gain_c * k(w); the gradient of a gain, the sum of k, is scaled by 1 / sqrt(its weights)."""
        gain = scale_gradient(self._positive(), step_gradient_scale(weight.numel() // len(self.gain), 1))
        return per_channel(gain, weight) * self.integers(weight)

    def _positive(self) -> Tensor:
        return channel_floor(self.gain.abs())
