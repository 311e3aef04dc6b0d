"""`ternary`: three levels, of weights by their mean magnitude (1605.04711), of activations by learned steps."""

from torch import Tensor

from hawq.quantizers.gain import GainedWeight
from hawq.quantizers.registry import register_activation, register_weight
from hawq.quantizers.staircase import StaircaseActivation
from hawq.quantizers.surrogates import substitute
from hawq.quantizers.weight import channel_floor

__all__ = ["TernaryActivation", "TernaryGain", "TernaryWeight", "ternary_threshold"]

_SHARE = 0.7
"""Of the mean magnitude: the threshold with the least error is 2/3 of it for uniform weights, 0.75 for normal ones."""


def ternary_threshold(rows: Tensor) -> Tensor:
    """Return 0.7 mean|w|, (R,), of rows of weights, (R, n) (1605.04711, equation 6)."""
    return _SHARE * rows.abs().mean(1)


@register_activation("ternary")
class TernaryActivation(StaircaseActivation):
    """Have three levels, codes 0..2, or -1..1 where values may be negative; the widths of the steps are learned."""

    widths = range(2, 3)

    def code_limits(self) -> tuple[int, int]:
        """Return -1 and 1 where values may be negative, else 0 and 2."""
        return (-1, 1) if self.may_be_negative else (0, 2)


class TernaryGain(GainedWeight):
    """Begin with the gain of least error, the mean magnitude of the weights that are not zero (equation 5)."""

    widths = range(2, 3)

    def start(self, rows: Tensor) -> Tensor:
        """Return the gains to begin with, (R,), of rows of weights, (R, n)."""
        kept = rows.abs() >= ternary_threshold(rows)[:, None]
        return (rows.abs() * kept).sum(1) / kept.sum(1)


@register_weight("ternary")
class TernaryWeight(TernaryGain):
    """Compare weights with +-0.7 mean|w| of the present weights, as ternary weight networks do; learn the gain.

    The gradient of a quantized weight passes to the weight unchanged, as published.
    """

    def integers(self, rows: Tensor) -> Tensor:
        """Return sign(w) where |w| reaches the threshold of its row, else 0."""
        large = rows.abs() >= channel_floor(ternary_threshold(rows.detach()))[:, None]
        return substitute(rows.sign() * large, rows / self.row_scale(rows)[:, None])
