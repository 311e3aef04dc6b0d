"""`laplace`, `gauss`, `std`, `mix`: clip where the density of the values says (ACIQ, 1810.05723)."""

from abc import abstractmethod

import torch
from torch import Tensor

from hawq.quantizers.density import Density
from hawq.quantizers.fake import fake_quantize
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.minmax import MinMaxWeight
from hawq.quantizers.percentile import thinned
from hawq.quantizers.registry import register_activation, register_weight
from hawq.quantizers.running import RunningActivation
from hawq.quantizers.weight import scale_over, weight_limit

__all__ = [
    "GaussActivation",
    "GaussWeight",
    "LaplaceActivation",
    "LaplaceWeight",
    "MixActivation",
    "MixWeight",
    "StdActivation",
    "StdWeight",
]


class _ReachActivation(RunningActivation):
    """Clip at a distance from the mean, and nowhere beyond the values; ranges are means over batches.

    Bins are the codes of the range: 2^b, or, around zero point 0, those from minus the highest code to the highest.
    Where no value is negative, those that are not zero are taken for one half of a density around zero: zeros have a
    code, whatever their share, and the others b bits on their side, as of b + 1 on two.
    """

    everywhere = False
    carries_widths = False

    @abstractmethod
    def reach(self, rows: Tensor, bins: int) -> Tensor:
        """Return the distance from the mean to the clip, (R,), of values (R, n), given the bins on both sides."""

    def range_of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the range of a batch, scalars."""
        low, high = torch.aminmax(value)
        lo, hi = self.grid.codes(self.bits)
        bins = hi - lo + 1 if self.grid is ActivationGrid.AFFINE else 2 * hi + 1
        rows = value.reshape(1, -1)
        if self.grid is ActivationGrid.UNSIGNED:
            positive = value[value > 0]
            rows = torch.cat([positive, -positive])[None]
        if rows.numel() == 0:
            return low, high
        mean, reach = rows.mean(), self.reach(rows, bins)[0]
        return torch.maximum(low, mean - reach), torch.minimum(high, mean + reach)


class _ReachWeight(MinMaxWeight):
    """Clip a row of weights at |mean| + reach, or at its largest magnitude if that is less."""

    everywhere = False

    @abstractmethod
    def reach(self, rows: Tensor, bins: int) -> Tensor:
        """Return the distance from the mean to the clip, (R,), of rows (R, n)."""

    def limits(self, rows: Tensor) -> Tensor:
        """Return the magnitudes beyond which weights are clipped, (R,)."""
        return torch.minimum(
            super().limits(rows), rows.mean(1).abs() + self.reach(rows, 2 * weight_limit(self.bits) + 1)
        )


@register_activation("laplace")
class LaplaceActivation(_ReachActivation):
    """Clip where values with a Laplace density err least."""

    def reach(self, rows: Tensor, bins: int) -> Tensor:
        """Return b W(3 w^2), (R,), b = mean |x - mean|."""
        return Density.LAPLACE.spread(rows) * Density.LAPLACE.clip(bins)


@register_weight("laplace")
class LaplaceWeight(_ReachWeight):
    """Clip a row of weights where values with a Laplace density err least."""

    def reach(self, rows: Tensor, bins: int) -> Tensor:
        """Return b W(3 w^2), (R,), b = mean |w - mean|."""
        return Density.LAPLACE.spread(rows) * Density.LAPLACE.clip(bins)


@register_activation("gauss")
class GaussActivation(_ReachActivation):
    """Clip where normal values err least."""

    def reach(self, rows: Tensor, bins: int) -> Tensor:
        """Return the clip in standard deviations times those, (R,)."""
        return Density.GAUSS.spread(rows) * Density.GAUSS.clip(bins)


@register_weight("gauss")
class GaussWeight(_ReachWeight):
    """Clip a row of weights where normal values err least."""

    def reach(self, rows: Tensor, bins: int) -> Tensor:
        """Return the clip in standard deviations times those, (R,)."""
        return Density.GAUSS.spread(rows) * Density.GAUSS.clip(bins)


@register_activation("std")
class StdActivation(_ReachActivation):
    """Clip at `QuantOptions.clip_stds` standard deviations from the mean."""

    def reach(self, rows: Tensor, bins: int) -> Tensor:
        """Return k standard deviations, (R,), whatever the bins."""
        return Density.GAUSS.spread(rows) * self.options.clip_stds


@register_weight("std")
class StdWeight(_ReachWeight):
    """Clip a row of weights at `QuantOptions.clip_stds` standard deviations."""

    def reach(self, rows: Tensor, bins: int) -> Tensor:
        """Return k standard deviations, (R,), whatever the bins."""
        return Density.GAUSS.spread(rows) * self.options.clip_stds


@register_activation("mix")
class MixActivation(RunningActivation):
    """Take of the ranges of `laplace`, `gauss` and `minmax` the one that errs least, batch by batch."""

    everywhere = False
    carries_widths = False

    def range_of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the range with the least squared error of 65,000 values of a batch, scalars."""
        rules = (cls(self.bits, self.grid, self.options) for cls in (LaplaceActivation, GaussActivation))
        ranges = [*(rule.range_of(value) for rule in rules), super().range_of(value)]
        sample, codes = thinned(value), self.grid.codes(self.bits)
        errors = [
            (fake_quantize(sample, *self.grid.place(*ends, self.bits), *codes) - sample).square_().sum()
            for ends in ranges
        ]
        return ranges[int(torch.stack(errors).argmin())]


@register_weight("mix")
class MixWeight(MinMaxWeight):
    """Clip every row of weights as `laplace`, `gauss` or `minmax` do, whichever errs least."""

    everywhere = False

    def limits(self, rows: Tensor) -> Tensor:
        """Return the magnitudes beyond which weights are clipped, (R,)."""
        largest, centre, top = super().limits(rows), rows.mean(1).abs(), weight_limit(self.bits)
        clips = [centre + density.spread(rows) * density.clip(2 * top + 1) for density in Density]
        limits = torch.stack([*(torch.minimum(largest, clip) for clip in clips), largest])
        errors = torch.stack([
            (fake_quantize(rows, scale_over(limit, self.bits)[:, None], 0, -top, top) - rows).square_().sum(1)
            for limit in limits
        ])  # fmt: skip
        return limits.gather(0, errors.argmin(0)[None])[0]
