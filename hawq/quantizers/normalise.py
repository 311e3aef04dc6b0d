"""Normalise weights before they are quantized: those of every layer then meet a quantizer in the same units."""

from enum import Enum

__all__ = ["WeightNorm"]


class WeightNorm(Enum):
    """What is done to the weights that share a scale.

    NONE: nothing.
    MEAN: w - mean.
    VAR: w / std.
    VAR_MEAN: (w - mean) / std (weight standardisation, 1903.10520).

    The standard deviation is put back behind the quantizer: it goes into the scale, which is exact. The mean is not:
    weights whose codes have zero point 0 have no place for it. To the gradient the standard deviation is a constant,
    as the range of `minmax` is.
    """

    NONE = "none"
    MEAN = "mean"
    VAR = "var"
    VAR_MEAN = "var-mean"

    @property
    def centres(self) -> bool:
        """Whether the mean is taken out."""
        return self in (WeightNorm.MEAN, WeightNorm.VAR_MEAN)

    @property
    def divides(self) -> bool:
        """Whether the standard deviation is taken out, and put back."""
        return self in (WeightNorm.VAR, WeightNorm.VAR_MEAN)
