"""Ask how sure a scheme is: solve it again under resampled sensitivities (bootstrap over batches)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hawq.bitconfig import UnitBits
from hawq.sensitivity.measure import ROUND
from hawq.sensitivity.result import Sensitivity
from search.scheme import Question, pose
from search.solve import Problem, Solution, solve

__all__ = ["Confidence", "UntilStable", "resample"]


@dataclass(frozen=True)
class Confidence:
    """Hold how a scheme fares under resampled sensitivities.

    Attributes:
        solution: under the sensitivities as measured.
        changes: searched unit -> share of the resamples in which its bits differ, 0..1.
        agreement: share of the resamples whose whole scheme is the same, 0..1.
        regret: mean over the resamples of how much the scheme's sum of Omega exceeds the best one's, relative to it;
            None without resamples.
        resamples: how many.
    """

    solution: Solution
    changes: Mapping[str, float]
    agreement: float
    regret: float | None
    resamples: int


def resample(question: Question, sensitivity: Sensitivity, resamples: int = 50, seed: int = 0) -> Confidence:
    """Draw the batches of a measurement anew, with replacement, and solve for each draw.

    All units share a draw, so that what they have in common, such as a hard batch, cancels as it does in the search.

    Args:
        question: what was searched.
        sensitivity: what was measured.
        resamples: how many draws; fewer than two batches allow none.
        seed: of the draws.
    """
    solution = solve(pose(question, sensitivity.omega))
    count = len(sensitivity.shares)
    if count < 2:
        return Confidence(solution, dict.fromkeys(solution.bits, 1.0), 0.0, None, 0)
    generator = torch.Generator().manual_seed(seed)
    changed: Counter[str] = Counter()
    same, regret = 0, 0.0
    for _ in range(resamples):
        drawn = torch.randint(0, count, (count,), generator=generator)
        problem = _posed(question, sensitivity, torch.bincount(drawn, minlength=count))
        other = solve(problem)
        differing = [unit for unit, bits in other.bits.items() if bits != solution.bits[unit]]
        changed.update(differing)
        same += not differing
        excess = problem.objective(solution.bits) - other.objective
        regret += excess / other.objective if other.objective else excess
    changes = {unit: changed[unit] / resamples for unit in solution.bits}
    return Confidence(solution, changes, same / resamples, regret / resamples, resamples)


def _posed(question: Question, sensitivity: Sensitivity, times: Tensor) -> Problem:
    shares = sensitivity.shares * times
    shares = shares / shares.sum()

    def omega(unit: str, bits: UnitBits) -> float:
        return sensitivity.omega(unit, bits, shares)

    return pose(question, omega)


@dataclass(frozen=True)
class UntilStable:
    """Tell whether a measurement suffices: asked after 8, 16, 32, 64 ... batches.

    Few looks find agreement by luck more rarely than many.

    Attributes:
        question: what is searched.
        relative_error: largest standard error allowed of a unit's share of the sum of Omega.
        agreement: share of the resamples that must give the very same scheme, 0..1.
    """

    question: Question
    relative_error: float = 0.1
    agreement: float = 0.9

    def __call__(self, found: Sensitivity) -> bool:
        """Return whether to stop."""
        rounds, rest = divmod(len(found.batches), ROUND)
        if rest or rounds & (rounds - 1):
            return False
        if found.share_error(min(self.question.allowed)) > self.relative_error:
            return False
        return resample(self.question, found).agreement >= self.agreement
