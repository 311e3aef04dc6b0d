"""Decide whether a plan is faster than the default: by more than noise, in measurements that take turns."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Comparison"]

_GAIN = 0.02
"""Share of the time that a plan must save: less is not worth a library that differs from the default one."""

_CHANCE = 0.01
"""Most probability that an equally fast plan wins as many turns."""


@dataclass(frozen=True)
class Comparison:
    """What came out when the default and a plan took turns.

    Attributes:
        default_ms: median of the default's times, in milliseconds.
        plan_ms: median of the plan's.
        ratio: median over the turns of the plan's time by the default's.
        wins: turns in which the plan was faster.
        turns: how many there were.
    """

    default_ms: float
    plan_ms: float
    ratio: float
    wins: int
    turns: int

    @classmethod
    def of(cls, default: ArrayLike, plan: ArrayLike) -> "Comparison":
        """Compare times in milliseconds, each (turns,)."""
        a, b = np.asarray(default, np.float64), np.asarray(plan, np.float64)
        ratio = np.median(b / np.maximum(a, 1e-9))  # a kernel may take no time beside the hook's
        return cls(float(np.median(a)), float(np.median(b)), float(ratio), int((b < a).sum()), len(a))

    @property
    def faster(self) -> bool:
        """Whether the plan saves at least 2 %, and wins more turns than chance lets it: a sign test at 1 %."""
        by_chance = sum(math.comb(self.turns, wins) for wins in range(self.wins, self.turns + 1)) / 2**self.turns
        return self.ratio <= 1 - _GAIN and by_chance <= _CHANCE
