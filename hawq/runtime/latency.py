"""Sum up how long runs took."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Latency", "summary"]


@dataclass(frozen=True)
class Latency:
    """Latency of one call.

    Attributes:
        median_ms: median of the runs, in milliseconds.
        p10_ms: 10th percentile.
        p90_ms: 90th percentile.
        runs: how many were measured.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int


def summary(times: ArrayLike) -> Latency:
    """Return the latency that one or more runs, in milliseconds, add up to."""
    low, median, high = np.percentile(np.asarray(times, np.float64), [10, 50, 90])
    return Latency(float(median), float(low), float(high), np.size(times))
