"""Find the scheme of a traced network: the bit config that a search ends with, and what it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hawq.bitconfig import BitConfig
from hawq.errors import UsageError
from hawq.graph.ir import FloatGraph
from hawq.graph.structure import pinned_units, tie_groups
from search.budgets import Budget
from search.costs import COSTS, UnitFacts, total_cost, unit_facts
from search.problem import assign, build_problem
from search.solve import Solution, solve

__all__ = ["Scheme", "find_scheme", "scheme_costs", "scheme_name"]


@dataclass(frozen=True)
class Scheme:
    """Hold the outcome of a search.

    Attributes:
        config: bits of every unit, pinned ones included.
        solution: of the integer program.
        facts: weights and MACs of every unit.
        groups: the searched tie groups.
        totals: scheme -> cost name -> cost of the whole network, for this scheme, `uniform8` and `uniform4`.
    """

    config: BitConfig
    solution: Solution
    facts: Mapping[str, UnitFacts]
    groups: tuple[tuple[str, ...], ...]
    totals: Mapping[str, Mapping[str, float]]


def scheme_name(budgets: Sequence[Budget]) -> str:
    """Return the name of the scheme that meets the budgets, for example `bops0.5+size=8MB`."""
    return "+".join(dict.fromkeys(budget.name for budget in budgets))


def scheme_costs(config: BitConfig, facts: Mapping[str, UnitFacts]) -> dict[str, float]:
    """Return the cost of a bit config by cost name, each in its plain unit (bytes, bit operations)."""
    return {name: total_cost(cost, facts.values(), config.units) for name, cost in COSTS.items()}


def find_scheme(
    arch: str,
    graph: FloatGraph,
    omega: Mapping[str, Mapping[int, float]],
    budgets: Sequence[Budget],
    widths: Sequence[int] = (4, 8),
) -> Scheme:
    """Return the scheme of least total Omega that meets every budget.

    Args:
        arch: the network's name, for the bit config.
        graph: the network.
        omega: unit -> bits -> Omega; every searched unit at least at `widths`.
        budgets: one or more; they hold at once.
        widths: bits a unit may get.

    Raises:
        UsageError: no budgets.
        HawqError: the budgets cannot be met.
    """
    if not budgets:
        raise UsageError("a search needs at least one budget, for example bops0.5")
    budgets = list({budget.name: budget for budget in budgets}.values())
    facts, ties, pinned = unit_facts(graph), tie_groups(graph), pinned_units(graph)
    allowed = {unit: {b: table[b] for b in widths} for unit, table in omega.items()}
    problem = build_problem(facts, ties, pinned, allowed, budgets)
    solution = solve(problem)
    config = BitConfig(arch, scheme_name(budgets), assign(facts, solution.bits))
    uniform = [BitConfig(arch, f"uniform{b}", assign(facts, dict.fromkeys(solution.bits, b))) for b in (8, 4)]
    totals = {c.scheme: scheme_costs(c, facts) for c in [config, *uniform]}
    return Scheme(config, solution, facts, problem.groups, totals)
