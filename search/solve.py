"""Choose the bits of every unit: an integer linear program with one-hot variables (2011.10680, section 3.4).

minimise    sum_i Omega_i(b_i)
subject to  fixed_c + sum_i cost_c,i(b_i) <= limit_c     for every budget c
            b_i = b_j                                    for units i, j of one tie group
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError
from search.backend import Choice, Row, minimise, relax

__all__ = ["Constraint", "Problem", "Solution", "shadow_prices", "solve"]

_TOLERANCE = 1e-9
"""Limits may be exceeded, and objectives called equal, by this share: the rounding of float64 sums."""

_ORDER_WEIGHT = 1e-3
"""Between assignments of equal cost, the one that gives more bits to earlier units wins."""


@dataclass(frozen=True)
class Constraint:
    """Limit one cost of an assignment.

    Attributes:
        name: of the budget, for example `bops0.5`.
        costs: unit -> bits -> cost, for the searched units.
        limit: on the sum, `fixed` included.
        fixed: cost of what is not searched.
        show: writes a value with its unit.
    """

    name: str
    costs: Mapping[str, Mapping[UnitBits, float]]
    limit: float
    fixed: float = 0.0
    show: Callable[[float], str] = "{:.6g}".format

    def total(self, bits: Mapping[str, UnitBits]) -> float:
        """Return the cost of an assignment, `fixed` included."""
        return self.fixed + sum(self.costs[unit][b] for unit, b in bits.items())


@dataclass(frozen=True)
class Problem:
    """Hold one program.

    Attributes:
        groups: tie groups in the order of the network; every searched unit is in exactly one.
        omega: unit -> bits -> Omega, the expected rise of the loss; its keys are the bits allowed.
        constraints: one for every budget.
    """

    groups: tuple[tuple[str, ...], ...]
    omega: Mapping[str, Mapping[UnitBits, float]]
    constraints: tuple[Constraint, ...]

    def candidates(self, group: Sequence[str]) -> list[UnitBits]:
        """Return the bits a group may have, in ascending order."""
        return sorted(set.intersection(*(set(self.omega[unit]) for unit in group)))

    def objective(self, bits: Mapping[str, UnitBits]) -> float:
        """Return the sum of Omega of an assignment."""
        return sum(self.omega[unit][b] for unit, b in bits.items())


@dataclass(frozen=True)
class Solution:
    """Hold the assignment of least objective.

    Attributes:
        bits: searched unit -> bits.
        objective: sum of Omega.
        costs: budget name -> cost, pinned units included.
        limits: budget name -> limit.
        gap: proven distance from the optimum, relative to the objective; 0 is optimal.
        solver: what solved it.
    """

    bits: Mapping[str, UnitBits]
    objective: float
    costs: Mapping[str, float]
    limits: Mapping[str, float]
    gap: float
    solver: str


def solve(problem: Problem, time_limit: float = 60.0) -> Solution:
    """Solve a program to optimality; among optimal assignments take the cheapest, then the one with early bits.

    The rule makes the answer a function of the problem and not of the solver: units whose Omega does not depend on
    their bits get the fewest, and of two units that could trade bits the earlier one gets more.

    Args:
        problem: what to solve.
        time_limit: seconds; after that the best assignment found is returned with its gap.

    Raises:
        HawqError: no assignment meets every limit; the message names the smallest limit that would work.
    """
    choices = _choices(problem)
    rows = [_row(problem, choices, constraint) for constraint in problem.constraints]
    primary, scale = _objective(problem, choices)
    found = None if _out_of_reach(problem) else minimise(choices, primary, rows, time_limit)
    if found is None:
        raise HawqError(_explain(problem, choices, time_limit))
    gap = found.distance * scale
    if found.optimal:
        keep = Row(primary, sum(primary[choice] for choice in found.chosen) + _TOLERANCE)
        equal = _in_equals(choices, primary, rows, keep.bound)
        cheapest = minimise(equal, _secondary(problem, equal), [*rows, keep], time_limit)
        found = cheapest or found
    bits = {unit: b for index, b in found.chosen for unit in problem.groups[index]}
    _check(problem, bits)
    objective = problem.objective(bits)
    return Solution(
        {unit: bits[unit] for group in problem.groups for unit in group},
        objective,
        {constraint.name: constraint.total(bits) for constraint in problem.constraints},
        {constraint.name: constraint.limit for constraint in problem.constraints},
        gap / abs(objective) if objective else gap,
        found.solver,
    )


def shadow_prices(problem: Problem) -> dict[str, float]:
    """Return by how much the sum of Omega falls for each plain unit (byte, bit operation, ms) that a limit rises.

    These are the duals of the linear program that lets a unit be at 8 bits in part. Where its optimum has no such unit
    the price jumps there, and the solver names one of the values between.

    Args:
        problem: what was solved.

    Returns:
        Budget name -> price, 0 or more; 0 where the limit does not bind.

    Raises:
        HawqError: no assignment meets every limit.
    """
    choices = _choices(problem)
    rows = [_row(problem, choices, constraint) for constraint in problem.constraints]
    objective, scale = _objective(problem, choices)
    prices = None if _out_of_reach(problem) else relax(choices, objective, rows)
    if prices is None:
        raise HawqError(_explain(problem, choices, 60.0))
    names = (constraint.name for constraint in problem.constraints)
    return {name: price * scale / row.scale for name, price, row in zip(names, prices, rows, strict=True)}


def _choices(problem: Problem) -> list[Choice]:
    choices = []
    for index, group in enumerate(problem.groups):
        candidates = problem.candidates(group)
        if not candidates:
            raise HawqError(f"units {', '.join(group)} share bits, but no bit width is allowed for all of them")
        choices += [(index, b) for b in candidates]
    return choices


def _group_sum(problem: Problem, table: Mapping[str, Mapping[UnitBits, float]], choice: Choice) -> float:
    index, b = choice
    return sum(table[unit][b] for unit in problem.groups[index])


def _objective(problem: Problem, choices: Sequence[Choice]) -> tuple[dict[Choice, float], float]:
    """Return Omega above each group's least, scaled so that the largest is 1, and the scale."""
    omega = {choice: _group_sum(problem, problem.omega, choice) for choice in choices}
    least: dict[int, float] = {}
    for (index, _), value in omega.items():
        least[index] = min(value, least.get(index, value))
    scale = max((omega[choice] - least[choice[0]] for choice in choices), default=0.0) or 1.0
    return {choice: (omega[choice] - least[choice[0]]) / scale for choice in choices}, scale


def _row(problem: Problem, choices: Sequence[Choice], constraint: Constraint) -> Row:
    """Return the constraint, scaled so that the solver's absolute tolerance is a relative one."""
    costs = {choice: _group_sum(problem, constraint.costs, choice) for choice in choices}
    scale = max(map(abs, costs.values()), default=0.0) or 1.0
    slack = _TOLERANCE * abs(constraint.limit)
    return Row(
        {choice: cost / scale for choice, cost in costs.items()},
        (constraint.limit + slack - constraint.fixed) / scale,
        scale,
    )


def _secondary(problem: Problem, choices: Sequence[Choice]) -> dict[Choice, float]:
    """Return the costs, each relative to its largest, with earlier units a little cheaper; bits where nothing costs."""
    tables = [constraint.costs for constraint in problem.constraints] or [
        {unit: {b: float(sum(b)) for b in omega} for unit, omega in problem.omega.items()}
    ]
    weights = dict.fromkeys(choices, 0.0)
    for table in tables:
        costs = {choice: _group_sum(problem, table, choice) for choice in choices}
        largest = max(costs.values(), default=0.0) or 1.0
        for choice, cost in costs.items():
            weights[choice] += cost / largest * (1 + _ORDER_WEIGHT * choice[0] / len(problem.groups))
    return weights


def _in_equals(
    choices: Sequence[Choice], objective: Mapping[Choice, float], rows: Sequence[Row], best: float
) -> list[Choice]:
    """Return the choices that an assignment with an objective of at most `best` may contain.

    For any prices l >= 0 of the rows, sum of least reduced costs - l . bounds is a lower bound on every assignment
    that meets them (Lagrange), and one that contains a choice pays the choice's excess on top. What is left after
    fixing by reduced costs is a program that solves at once.
    """
    prices = relax(choices, objective, rows) or (0.0,) * len(rows)
    reduced = {
        choice: objective[choice] + sum(p * row.coefficients[choice] for p, row in zip(prices, rows, strict=True))
        for choice in choices
    }
    least: dict[int, float] = {}
    for (index, _), value in reduced.items():
        least[index] = min(value, least.get(index, value))
    bound = sum(least.values()) - sum(p * row.bound for p, row in zip(prices, rows, strict=True))
    slack = best - bound + _TOLERANCE
    return [choice for choice in choices if reduced[choice] - least[choice[0]] <= slack]


def _least(problem: Problem, constraint: Constraint) -> float:
    return constraint.fixed + sum(
        min(_group_sum(problem, constraint.costs, (index, b)) for b in problem.candidates(group))
        for index, group in enumerate(problem.groups)
    )


def _out_of_reach(problem: Problem) -> list[Constraint]:
    """Return the budgets that no assignment meets, whatever the others say."""
    return [c for c in problem.constraints if _least(problem, c) > c.limit + _TOLERANCE * abs(c.limit)]


def _explain(problem: Problem, choices: Sequence[Choice], time_limit: float) -> str:
    """Say which limits cannot be met, and the smallest that could, the other budgets kept where they can be."""
    lines = []
    for constraint in _out_of_reach(problem):
        least = constraint.show(_least(problem, constraint))
        lines.append(f"{constraint.name} allows {constraint.show(constraint.limit)}, the cheapest scheme needs {least}")
    for constraint in problem.constraints if not lines else ():
        others = [_row(problem, choices, c) for c in problem.constraints if c is not constraint]
        costs = {choice: _group_sum(problem, constraint.costs, choice) for choice in choices}
        largest = max(costs.values()) or 1.0
        found = minimise(choices, {choice: cost / largest for choice, cost in costs.items()}, others, time_limit)
        if found is not None:
            least = constraint.show(constraint.fixed + sum(costs[choice] for choice in found.chosen))
            lines.append(
                f"{constraint.name} allows {constraint.show(constraint.limit)}, "
                f"with the other budgets kept the cheapest scheme needs {least}"
            )
    allowed = ", ".join(map(str, sorted({b for _, b in choices})))
    reason = "; ".join(lines) or f"{', '.join(c.name for c in problem.constraints)} contradict each other"
    return f"infeasible with {allowed} bits: {reason}. Raise the budget or allow fewer bits (--bits 2,4,8)"


def _check(problem: Problem, bits: Mapping[str, UnitBits]) -> None:
    for constraint in problem.constraints:
        total = constraint.total(bits)
        if total > constraint.limit + 2 * _TOLERANCE * abs(constraint.limit):
            raise HawqError(
                f"the solver's assignment costs {constraint.show(total)}, above {constraint.name} = "
                f"{constraint.show(constraint.limit)}; please report this with the sensitivity file"
            )
