"""Trace the Pareto front of a network: the least sum of Omega that each cost allows (HAWQ-V2, arXiv 1911.03852).

HAWQ-V2 lists, for every target size, the bits of least sum of Omega, and picks from that front. Here each of its points
is an optimum of the integer program for a limit on one cost; the limits lie evenly between the cheapest and the dearest
assignment, which without pins and with 4 and 8 bits is alpha = 0, 0.05 .. 1 of a relative budget.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hawq.bitconfig import BitConfig, UnitBits
from search.budgets import Budget, BudgetKind
from search.costs import Cost
from search.problem import assign
from search.scheme import Omega, Question, pose, scheme_costs
from search.solve import Constraint, solve

__all__ = ["FrontPoint", "pareto_front", "pareto_fronts"]

_STEPS = 20
"""Intervals between the cheapest and the dearest limit."""


@dataclass(frozen=True)
class FrontPoint:
    """Hold one optimum: no other of the front is both as cheap and as little sensitive.

    Attributes:
        alpha: relative limit at which it was found, as in `bops0.5`: 0 is all 4 bit, 1 all 8 bit, below 0 is less than
            4 bits; None where both cost the same.
        costs: cost name -> cost of the whole network, in plain units (bytes, bit operations, ms).
        objective: sum of Omega over the searched units.
        bits: searched unit -> bits.
    """

    alpha: float | None
    costs: Mapping[str, float]
    objective: float
    bits: Mapping[str, UnitBits]


def pareto_fronts(question: Question, omega: Omega, steps: int = _STEPS) -> dict[str, tuple[FrontPoint, ...]]:
    """Return the front of every cost of a question, by its name.

    Args:
        question: the network, the bits allowed and the costs; its budgets do not count.
        omega: the sensitivities.
        steps: intervals between the cheapest and the dearest limit.

    Raises:
        UsageError: a pin that matches nothing.
        HawqError: nothing to search, or a cost that is not known at 4 and 8 bits.
    """
    return {name: pareto_front(question, omega, cost, steps) for name, cost in question.costs.items()}


def pareto_front(question: Question, omega: Omega, cost: Cost, steps: int = _STEPS) -> tuple[FrontPoint, ...]:
    """Return the front of one cost: the cost rises strictly and the sum of Omega falls strictly.

    Args:
        question: the network, the bits allowed and the costs that are listed; its budgets do not count.
        omega: the sensitivities.
        cost: what is limited.
        steps: intervals between the cheapest and the dearest limit.

    Raises:
        UsageError: a pin that matches nothing.
        HawqError: nothing to search, or a cost that is not known at 4 and 8 bits.
    """
    budgets = tuple(Budget(f"{cost.name}{alpha}", cost, BudgetKind.RELATIVE, alpha) for alpha in (0, 1))
    problem = pose(replace(question, budgets=budgets), omega)
    at_4, at_8 = problem.constraints
    totals = [
        [sum(at_4.costs[unit][bits] for unit in group) for bits in problem.candidates(group)]
        for group in problem.groups
    ]
    least, most = (at_4.fixed + sum(extreme(group) for group in totals) for extreme in (min, max))
    found = []
    for step in range(steps + 1):
        limit = least + step / steps * (most - least)
        solution = solve(replace(problem, constraints=(replace(at_4, limit=limit),)))
        config = BitConfig(question.arch, "front", assign(question.facts, solution.bits))
        costs = scheme_costs(config, question.facts, {**question.costs, cost.name: cost})
        found.append(FrontPoint(_alpha(limit, at_4, at_8), costs, solution.objective, solution.bits))
    return _undominated(found, cost.name)


def _alpha(limit: float, at_4: Constraint, at_8: Constraint) -> float | None:
    span = at_8.limit - at_4.limit
    return None if span == 0 else round((limit - at_4.limit) / span, 6) + 0.0


def _undominated(points: list[FrontPoint], cost: str) -> tuple[FrontPoint, ...]:
    """Keep the points with a smaller objective than every cheaper one, each once."""
    kept: list[FrontPoint] = []
    for point in sorted(points, key=lambda point: (point.costs[cost], point.objective)):
        if not kept or point.objective < kept[-1].objective:
            kept.append(point)
    return tuple(kept)
