"""`percentile`: the range leaves out the outliers (1805.06085 clips by learning; 2004.09602 compares percentiles)."""

import math

import torch
from torch import Tensor

from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.minmax import MinMaxActivation, MinMaxWeight
from hawq.quantizers.registry import register_activation, register_weight

__all__ = ["PercentileActivation", "PercentileWeight", "percentile_bounds", "thinned"]

_SAMPLE = 1 << 16


def percentile_bounds(rows: Tensor, percent: float) -> tuple[Tensor, Tensor]:
    """Return the k-th smallest values of each row, k = ceil((100 - p)% n), at least 1, and k = ceil(p% n).

    Args:
        rows: (R, n).
        percent: p, in (50, 100].

    Returns:
        Lower and upper bounds, (R,) each.
    """
    count = rows.shape[1]
    above = min(count, math.ceil(count * percent / 100))
    # selecting the few values of a tail is several times faster than the k-th of all
    upper = rows.topk(count - above + 1, dim=1, sorted=False).values.amin(1)
    below = max(1, math.ceil(count * (100 - percent) / 100))
    lower = rows.topk(below, dim=1, largest=False, sorted=False).values.amax(1)
    return lower, upper


def thinned(value: Tensor, count: int = _SAMPLE) -> Tensor:
    """Return about `count` values, evenly spaced with a step that walks through all columns and rows of the maps."""
    flat = value.flatten()
    step = max(1, flat.numel() // count)
    while math.gcd(step, math.prod(value.shape[1:]) or 1) > 1 and step > 1:
        step += 1
    return flat[::step]


@register_activation("percentile")
class PercentileActivation(MinMaxActivation):
    """Keep a running range between the percentiles 100 - p and p; 0 and p where no value is negative.

    Percentiles are those of 65,000 values, evenly spaced: their share beyond the range is known to a few percent of
    itself, and finding them costs a thousandth of a sort of everything.
    """

    def range_of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the percentiles, scalars."""
        lower, upper = percentile_bounds(thinned(value)[None], self.options.act_percentile)
        if self.grid is ActivationGrid.UNSIGNED:
            lower = torch.zeros_like(lower)
        return lower[0], upper[0]


@register_weight("percentile")
class PercentileWeight(MinMaxWeight):
    """Clip a row of weights at the larger magnitude of its percentiles 100 - p and p."""

    def limits(self, rows: Tensor) -> Tensor:
        """Return the larger magnitude of both percentiles, (R,)."""
        lower, upper = percentile_bounds(rows, self.options.weight_percentile)
        return torch.maximum(lower.abs(), upper.abs())
