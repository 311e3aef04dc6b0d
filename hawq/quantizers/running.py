"""`running`: the range is the mean of the batches' ranges."""

from torch import Tensor

from hawq.quantizers.minmax import MinMaxActivation
from hawq.quantizers.registry import register_activation

__all__ = ["RunningActivation"]


@register_activation("running")
class RunningActivation(MinMaxActivation):
    """Average the ranges of the batches of a calibration: one outlier then widens the range by its share of them.

    Training goes on as `minmax` does.
    """

    def calibrate(self, value: Tensor) -> None:
        """Take in the range of a batch."""
        low, high = self.range_of(value)
        self._average(self.low, low)
        self._average(self.high, high)
