"""Solve where values of a known density are best clipped before they are quantized (1810.05723)."""

import math
from enum import Enum
from functools import lru_cache

from torch import Tensor

__all__ = ["Density"]

_WIDEST = 64.0
"""Of the clips that are sought, in spreads: that of Laplace at 2^40 bins is 50."""

_HALVINGS = 64
"""Of the interval that holds a clip: it ends at float64's last bit."""


class Density(Enum):
    """A density with one spread: LAPLACE's is b = mean |x - mean|, GAUSS's the standard deviation.

    Clipped at +-u spreads around the mean and rounded to w bins of width 2u / w, whose noise is uniform, values have
    the expected squared error, in squared spreads,

        LAPLACE: 2 exp(-u) + u^2 / (3 w^2)
        GAUSS:   (1 + u^2) erfc(u / sqrt 2) - sqrt(2/pi) u exp(-u^2 / 2) + u^2 / (3 w^2)

    Both are convex. M bits are w = 2^M; a tensor behind a ReLU has all bins on one side, as if there were 2^(M+1).
    """

    LAPLACE = "laplace"
    GAUSS = "gauss"

    def error(self, clip: float, bins: float) -> float:
        """Return the expected squared error of a clip u with w bins, in squared spreads."""
        noise = clip**2 / (3 * bins**2)
        if self is Density.LAPLACE:
            return 2 * math.exp(-clip) + noise
        tail = (1 + clip**2) * math.erfc(clip / math.sqrt(2))
        return tail - math.sqrt(2 / math.pi) * clip * math.exp(-(clip**2) / 2) + noise

    def clip(self, bins: float) -> float:
        """Return the clip u of least error with w bins, in spreads; w need not be an integer.

        For LAPLACE it is W(3 w^2), W Lambert's function.
        """
        return _clip(self, bins)

    def spread(self, rows: Tensor) -> Tensor:
        """Return the spread of each row, (R,), of values (R, n); the standard deviation is the unbiased one."""
        if self is Density.LAPLACE:
            return (rows - rows.mean(1, keepdim=True)).abs().mean(1)
        return rows.std(1, correction=min(1, rows.shape[1] - 1))

    def _slope(self, clip: float, bins: float) -> float:
        """Return half the derivative of the error to the clip."""
        noise = clip / (3 * bins**2)
        if self is Density.LAPLACE:
            return noise - math.exp(-clip)
        return noise + clip * math.erfc(clip / math.sqrt(2)) - math.sqrt(2 / math.pi) * math.exp(-(clip**2) / 2)


@lru_cache(maxsize=4096)
def _clip(density: Density, bins: float) -> float:
    low, high = 0.0, _WIDEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if density._slope(middle, bins) < 0 else (low, middle)
    return high
