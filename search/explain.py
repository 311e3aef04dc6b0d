"""Explain a scheme: what each unit costs and suffers, what a limit is worth, and what one step up or down changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hawq.bitconfig import BitConfig, UnitBits
from hawq.sensitivity.result import Sensitivity
from search.costs import total_cost
from search.scheme import Question, pose
from search.solve import Constraint, shadow_prices

__all__ = ["Explanation", "PricedBudget", "Step", "UnitShare", "explain"]

_TOLERANCE = 1e-9
"""Limits may be exceeded by this share: the rounding of float64 sums."""


@dataclass(frozen=True)
class UnitShare:
    """State what one unit contributes.

    Attributes:
        bits: in the scheme.
        omega: Omega at these bits, expected rise of the loss.
        error: standard error of Omega; None for a single batch.
        costs: cost name -> cost, in plain units (bytes, bit operations, ms).
    """

    bits: UnitBits
    omega: float
    error: float | None
    costs: Mapping[str, float]


@dataclass(frozen=True)
class PricedBudget:
    """State what a budget allows, what the scheme uses of it, and what more of it is worth.

    Attributes:
        cost: name of what is limited.
        limit: on the whole network, in the cost's plain unit.
        used: by the scheme, in the cost's plain unit.
        price: sum of Omega saved per plain unit that the limit rises, see `shadow_prices`.
    """

    cost: str
    limit: float
    used: float
    price: float


@dataclass(frozen=True)
class Step:
    """State what changes when a tie group gets its next width; its units move together.

    Attributes:
        before: unit -> bits in the scheme.
        after: unit -> bits after the step.
        omega: change of the sum of Omega.
        costs: cost name -> change, in plain units (bytes, bit operations, ms).
        worth: Omega gained per cost, in prices: omega / -sum(price * change of cost). Steps up below 1 and steps down
            above 1 are what the prices advise against, and the closer to 1, the closer the units are to flipping.
            None without a price.
        fits: whether every budget still holds after it.
    """

    before: Mapping[str, UnitBits]
    after: Mapping[str, UnitBits]
    omega: float
    costs: Mapping[str, float]
    worth: float | None
    fits: bool

    @property
    def up(self) -> bool:
        """Whether the units get more bits."""
        return all(self.after[unit] >= bits for unit, bits in self.before.items())


@dataclass(frozen=True)
class Explanation:
    """Hold all that is known of a scheme.

    Attributes:
        units: every unit, pinned ones included, in the order of the network.
        budgets: budget name -> what it is worth.
        steps: one step up and one down of every searched tie group, where there is a next width.
    """

    units: Mapping[str, UnitShare]
    budgets: Mapping[str, PricedBudget]
    steps: tuple[Step, ...]


def explain(question: Question, config: BitConfig, sensitivity: Sensitivity) -> Explanation:
    """Explain a scheme of a network.

    Args:
        question: the budgets that have a price (none is allowed), the costs to list, and the bits a step may lead to.
        config: the scheme; it need not be the optimum.
        sensitivity: what was measured.

    Raises:
        HawqError: no scheme meets the budgets, or something is not known at the bits of a step.
        UsageError: a table of latencies lacks these bits.
    """
    facts, costs = question.facts, question.costs
    units = {
        name: UnitShare(
            bits := config.units[name],
            sensitivity.omega(name, bits),
            sensitivity.error(name, bits),
            {kind: cost.of(facts[name], bits) for kind, cost in costs.items()},
        )
        for name in facts
    }
    budgets = _priced(question, config, sensitivity)
    ladder = sorted({width for bits in question.allowed for width in bits})
    steps = []
    for group in question.groups:
        for direction in (1, -1):
            before = {unit: config.units[unit] for unit in group}
            after = {unit: UnitBits(*(_next(width, ladder, direction) for width in before[unit])) for unit in group}
            if after != before:
                steps.append(_step(question, sensitivity, budgets, before, after))
    return Explanation(units, budgets, tuple(steps))


def _next(width: int, ladder: Sequence[int], direction: int) -> int:
    """Return the next width up (1) or down (-1), or the same where there is none."""
    further = [other for other in ladder if (other - width) * direction > 0]
    return min(further, key=lambda other: abs(other - width), default=width)


def _priced(question: Question, config: BitConfig, sensitivity: Sensitivity) -> dict[str, PricedBudget]:
    if not question.budgets:
        return {}
    problem = pose(question, sensitivity.omega)
    prices = shadow_prices(problem)
    limits: dict[str, Constraint] = {constraint.name: constraint for constraint in problem.constraints}
    facts = question.facts.values()
    return {
        budget.name: PricedBudget(
            budget.cost.name,
            limits[budget.name].limit,
            total_cost(budget.cost, facts, config.units),
            prices[budget.name],
        )
        for budget in question.budgets
    }


def _step(
    question: Question,
    sensitivity: Sensitivity,
    budgets: Mapping[str, PricedBudget],
    before: Mapping[str, UnitBits],
    after: Mapping[str, UnitBits],
) -> Step:
    omega = sum(sensitivity.omega(unit, after[unit]) - sensitivity.omega(unit, before[unit]) for unit in before)
    moved = [question.facts[unit] for unit in before]
    kinds = {**question.costs, **{budget.cost.name: budget.cost for budget in question.budgets}}
    costs = {name: total_cost(cost, moved, after) - total_cost(cost, moved, before) for name, cost in kinds.items()}
    paid = sum(budget.price * costs[budget.cost] for budget in budgets.values())
    fits = all(budget.used + costs[budget.cost] <= budget.limit * (1 + _TOLERANCE) for budget in budgets.values())
    return Step(before, after, omega, costs, -omega / paid if paid else None, fits)
