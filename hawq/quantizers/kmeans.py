"""`kmeans`: levels are the centroids of the weights, on a fine scale (1510.00149; ACIQ, 1810.05723)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_weight
from hawq.quantizers.surrogates import substitute
from hawq.quantizers.weight import WeightQuantizer, channel_floor

__all__ = ["KMeansWeight", "centroids"]

_ROUNDS = 50
"""Alternations of assigning and averaging; the error then falls by less than a thousandth a round."""

_TOP = 127
"""Code of the centroid of largest magnitude."""


def centroids(rows: Tensor, count: int) -> Tensor:
    """Return, for every row, centroids of the values, rising, float64, (R, count): Lloyd's algorithm.

    It starts from even levels over the range and from quantiles, and keeps what errs less: so it never errs more than
    the even levels do.

    Args:
        rows: float, (R, n).
        count: of centroids.
    """
    ordered = rows.double().sort(dim=1).values
    ranks = (torch.arange(count, device=rows.device) + 0.5) * ordered.shape[1] / count
    share = torch.linspace(0, 1, count, dtype=torch.float64, device=rows.device)
    even = ordered[:, :1] + (ordered[:, -1:] - ordered[:, :1]) * share
    found = [_settled(ordered, start) for start in (even, ordered[:, ranks.long()])]
    errors = [(_nearest(levels, ordered) - ordered).square().sum(1, keepdim=True) for levels in found]
    return torch.where(errors[0] <= errors[1], *found)


def _settled(ordered: Tensor, levels: Tensor) -> Tensor:
    sums = F.pad(ordered.cumsum(1), (1, 0))
    for _ in range(_ROUNDS):
        edges = F.pad(torch.searchsorted(ordered, _middles(levels)), (1, 0))
        edges = F.pad(edges, (0, 1), value=ordered.shape[1])
        count, total = edges.diff(dim=1), sums.gather(1, edges).diff(dim=1)
        levels = torch.where(count > 0, total / count.clamp(min=1), levels)
    return levels


def _middles(levels: Tensor) -> Tensor:
    return (levels[:, :-1] + levels[:, 1:]) / 2


def _nearest(levels: Tensor, rows: Tensor) -> Tensor:
    """Return the nearest of each row's levels, (R, L), rising, for its values, (R, n); the upper one of equals."""
    chosen = torch.searchsorted(_middles(levels).contiguous(), rows.contiguous(), right=True)
    return levels.gather(1, chosen)


@register_weight("kmeans")
class KMeansWeight(WeightQuantizer):
    """Give every weight the nearest of 2^b centroids of its row, found when the quantizer is built.

    Centroids are rounded to multiples of a 127th of the largest, so that they are codes. Training moves weights between
    them; the gradient passes unchanged.
    """

    widths = range(1, 9)

    levels: Tensor
    scales: Tensor

    def __init__(self, bits: int, weight: Tensor, options: QuantOptions) -> None:
        super().__init__(bits, weight, options)
        found = centroids(self.rows(weight.detach()), 1 << bits).float()
        scales = channel_floor(found.abs().amax(dim=1)) / _TOP
        self.register_buffer("levels", torch.round(found / scales[:, None]))  # float32, (R, 2^b)
        self.register_buffer("scales", scales)

    def row_scale(self, rows: Tensor) -> Tensor:
        """Return the scales of the level tables, float32, (R,)."""
        return self.scales

    def quantize(self, rows: Tensor) -> Tensor:
        """Return the nearest levels."""
        codes = _nearest(self.levels, rows.detach() / self.scales[:, None])
        return substitute(codes * self.scales[:, None], rows)
