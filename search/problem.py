"""Turn a network's facts, sensitivities and budgets into the program that `solve` takes, and its answer into bits."""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError, UsageError
from hawq.schemes import PINNED_BITS
from search.budgets import Budget
from search.costs import UnitFacts, total_cost
from search.solve import Constraint, Problem

__all__ = ["assign", "build_problem", "expand_pins", "options", "searched_groups"]


def options(widths: Collection[int], *, apart: bool = False) -> tuple[UnitBits, ...]:
    """Return the bits a unit may get: one width for weights and input alike, or `apart`, every pair of widths."""
    return tuple(UnitBits(w, a) for w in sorted(widths) for a in sorted(widths) if apart or w == a)


def searched_groups(
    units: Sequence[str], ties: Sequence[Sequence[str]], pinned: Collection[str]
) -> tuple[tuple[str, ...], ...]:
    """Return the groups that are searched, each as one, in the order of their first units.

    A group with a pinned unit is left out whole: its other units read the same codes and must follow.

    Args:
        units: every unit, in the order of the network.
        ties: units that share bits; a unit in none of them is a group of its own.
        pinned: units that stay at 8 bits.

    Raises:
        HawqError: a tie names an unknown unit, or a unit is tied twice.
    """
    tied = [unit for tie in ties for unit in tie]
    odd = sorted({unit for unit in tied if unit not in units or tied.count(unit) > 1})
    if odd:
        raise HawqError(f"tie groups name a unit twice or one the network does not have: {', '.join(odd[:5])}")
    group_of = {unit: tuple(tie) for tie in ties for unit in tie}
    groups = dict.fromkeys(group_of.get(unit, (unit,)) for unit in units)
    return tuple(group for group in groups if not set(group) & set(pinned))


def expand_pins(pins: Mapping[str, UnitBits], groups: Sequence[Sequence[str]]) -> dict[str, UnitBits]:
    """Return the bits of every unit that a pattern pins, its tie group included.

    Args:
        pins: shell pattern over unit names -> bits.
        groups: the searched groups.

    Raises:
        UsageError: a pattern matches no searched unit, or two disagree.
    """
    pinned: dict[str, UnitBits] = {}
    for pattern, bits in pins.items():
        matched = [group for group in groups if any(fnmatchcase(unit, pattern) for unit in group)]
        if not matched:
            raise UsageError(
                f"pin {pattern!r} matches no unit that is searched (first and last units stay at 8 bits); "
                f"units are named like {groups[0][0]!r}, and * stands for any text"
            )
        for unit in (unit for group in matched for unit in group):
            if pinned.setdefault(unit, bits) != bits:
                raise UsageError(f"pins give {unit} both {pinned[unit]} and {bits} bits, maybe through a tied unit")
    return pinned


def assign(facts: Mapping[str, UnitFacts], bits: Mapping[str, UnitBits]) -> dict[str, UnitBits]:
    """Return the bits of every unit; 8 where `bits` names none."""
    return {name: bits.get(name, PINNED_BITS) for name in facts}


def build_problem(
    facts: Mapping[str, UnitFacts],
    ties: Sequence[Sequence[str]],
    pinned: Collection[str],
    omega: Mapping[str, Mapping[UnitBits, float]],
    budgets: Sequence[Budget],
) -> Problem:
    """Return the program of a network.

    Args:
        facts: of every unit, pinned ones included, in the order of the network.
        ties: units that share bits, see `searched_groups`.
        pinned: units that stay at 8 bits.
        omega: searched unit -> allowed bits -> Omega.
        budgets: all of them hold at once.

    Raises:
        HawqError: the ties do not fit the units, or nothing is left to search.
    """
    free = searched_groups(list(facts), ties, pinned)
    if not free:
        raise HawqError("every unit is pinned to 8 bits, so there is nothing to search; use the scheme uniform8")
    names = [unit for group in free for unit in group]
    return Problem(
        free,
        {name: omega[name] for name in names},
        tuple(_constraint(facts, names, omega, budget) for budget in budgets),
    )


def _constraint(
    facts: Mapping[str, UnitFacts],
    names: Sequence[str],
    omega: Mapping[str, Mapping[UnitBits, float]],
    budget: Budget,
) -> Constraint:
    searched = [facts[name] for name in names]
    rest = [unit for unit in facts.values() if unit.name not in set(names)]

    def total(units: Sequence[UnitFacts], bits: UnitBits) -> float:
        return total_cost(budget.cost, units, {unit.name: bits for unit in units})

    fixed = total(rest, PINNED_BITS)
    return Constraint(
        budget.name,
        {unit.name: {b: budget.cost.of(unit, b) for b in omega[unit.name]} for unit in searched},
        budget.limit(total(searched, UnitBits(4, 4)), total(searched, UnitBits(8, 8)), fixed),
        fixed,
        budget.cost.show,
    )
