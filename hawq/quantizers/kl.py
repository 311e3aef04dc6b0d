"""`kl`: clip where the quantized distribution says most of the original one (entropy calibration)."""

import torch
from torch import Tensor

from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.minmax import MinMaxActivation
from hawq.quantizers.registry import register_activation

__all__ = ["KlActivation", "kl_threshold"]

_BINS = 2001
"""Of the histogram over [-max|x|, max|x|]: odd, so that zero is the middle of one."""

_LEAST = 1e-4
"""What a part of the range counts at least, so that the divergence is finite where its only values lie beyond."""


def kl_threshold(histogram: Tensor, levels: int) -> int:
    """Return over how many bins on each side of the middle one levels should spread: those with the least KL(P || Q).

    P is the histogram within t bins of the middle, what lies beyond added to its first and last bin. Q divides that
    range into `levels` equal parts and spreads what the histogram has in each evenly over the bins that P fills. As Q
    is constant within parts, no loop over bins is needed: with sums P_j, H_j and B_j over part j, of P, the histogram
    and the filled bins,

        N KL = sum_i P_i log P_i - sum_j P_j log(H_j / B_j) + N log(sum_j H_j / N)

    Args:
        histogram: counts, float64, (2h + 1,), zero in its middle.
        levels: codes of the quantizer, 3 to 2h + 1.
    """
    half = len(histogram) // 2
    reach = torch.arange(levels // 2, half + 1, device=histogram.device)
    first, last = half - reach, half + reach
    total, entropy, filled = (_sums(of) for of in (histogram, torch.xlogy(histogram, histogram), histogram > 0))
    count, below, above = total[-1], total[first], total[-1] - total[last + 1]
    parts = torch.arange(levels + 1, device=histogram.device)
    edges = first[:, None] - (-parts * (2 * reach + 1)[:, None]).div(levels, rounding_mode="floor")
    inside, bins = total[edges].diff(dim=1), filled[edges].diff(dim=1)
    reference, own = inside.clone(), entropy[last + 1] - entropy[first]
    for part, end, beyond in ((0, first, below), (-1, last, above)):
        alone = histogram[end]
        reference[:, part] += beyond
        bins[:, part] += (alone == 0) & (beyond > 0)
        own += torch.xlogy(alone + beyond, alone + beyond) - torch.xlogy(alone, alone)
    spread = torch.xlogy(reference, inside.clamp(min=_LEAST) / bins.clamp(min=1)).sum(1)
    divergence = own - spread + count * inside.sum(1).clamp(min=_LEAST).log()
    return int(reach[divergence.argmin()])


def _sums(values: Tensor) -> Tensor:
    """Return the sums of the first 0, 1, .. n values, float64, (n + 1,)."""
    return torch.nn.functional.pad(values.double().cumsum(0), (1, 0))


@register_activation("kl")
class KlActivation(MinMaxActivation):
    """Clip where the histogram of the codes diverges least from that of the values; of several batches the widest.

    Where no value is negative, those that are not zero are counted on both sides, and b bits as b + 1 of two sides:
    zeros have a code of their own, but their peak, spread over a part of the range, would outweigh everything else.
    """

    everywhere = False
    carries_widths = False

    def range_of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the range of a batch, scalars."""
        low, high = torch.aminmax(value)
        end = float(torch.maximum(low.abs(), high.abs()))
        if not end > 0:
            return low, high
        top, one_sided = self.grid.without_zero_point().codes(self.bits)[1], self.grid is ActivationGrid.UNSIGNED
        counts = torch.histc(value[value > 0] if one_sided else value, _BINS, -end, end).double()
        if one_sided:
            counts = counts + counts.flip(0)
        reach = end * (2 * kl_threshold(counts, 2 * top + 1) + 1) / _BINS
        return low.clamp(min=-reach), high.clamp(max=reach)
