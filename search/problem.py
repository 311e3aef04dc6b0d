"""Turn a network's facts, sensitivities and budgets into the program that `solve` takes, and its answer into bits."""

from collections.abc import Collection, Mapping, Sequence

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError
from search.budgets import Budget
from search.costs import UnitFacts, total_cost
from search.solve import Constraint, Problem

__all__ = ["PINNED_BITS", "assign", "build_problem", "searched_groups"]

PINNED_BITS = 8
"""Bits of units that are not searched: first convolution and classifier (2011.10680, section 4)."""


def searched_groups(groups: Sequence[Sequence[str]], pinned: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Return the tie groups that are searched: those without a pinned unit, whose partners must follow it."""
    return tuple(tuple(group) for group in groups if not set(group) & set(pinned))


def assign(facts: Mapping[str, UnitFacts], bits: Mapping[str, int]) -> dict[str, UnitBits]:
    """Return the bits of every unit, weights and input activation alike; pinned where `bits` names none."""
    return {name: UnitBits(*(bits.get(name, PINNED_BITS),) * 2) for name in facts}


def build_problem(
    facts: Mapping[str, UnitFacts],
    groups: Sequence[Sequence[str]],
    pinned: Collection[str],
    omega: Mapping[str, Mapping[int, float]],
    budgets: Sequence[Budget],
) -> Problem:
    """Return the program of a network.

    Args:
        facts: of every unit, pinned ones included, in the order of the network.
        groups: tie groups; together they hold every unit once.
        pinned: units that stay at 8 bits.
        omega: searched unit -> allowed bits -> Omega.
        budgets: all of them hold at once.

    Raises:
        HawqError: the groups do not hold every unit once, or nothing is left to search.
    """
    members = [unit for group in groups for unit in group]
    if sorted(members) != sorted(facts):
        odd = sorted(set(members) ^ set(facts)) or sorted({u for u in members if members.count(u) > 1})
        raise HawqError(f"tie groups must hold every unit once; look at {', '.join(odd[:5])}")
    free = searched_groups(groups, pinned)
    if not free:
        raise HawqError("every unit is pinned to 8 bits, so there is nothing to search; use the scheme uniform8")
    names = [unit for group in free for unit in group]
    return Problem(
        free,
        {name: omega[name] for name in names},
        tuple(_constraint(facts, names, omega, budget) for budget in budgets),
    )


def _constraint(
    facts: Mapping[str, UnitFacts], names: Sequence[str], omega: Mapping[str, Mapping[int, float]], budget: Budget
) -> Constraint:
    searched = [facts[name] for name in names]
    rest = [unit for unit in facts.values() if unit.name not in set(names)]

    def uniform(units: Sequence[UnitFacts], bits: int) -> float:
        return total_cost(budget.cost, units, {unit.name: UnitBits(bits, bits) for unit in units})

    fixed = uniform(rest, PINNED_BITS)
    return Constraint(
        budget.name,
        {unit.name: {b: budget.cost.of(unit, UnitBits(b, b)) for b in omega[unit.name]} for unit in searched},
        budget.limit(uniform(searched, 4), uniform(searched, 8), fixed),
        fixed,
        budget.cost.show,
    )
