"""Find the scheme of a traced network: the bit config that a search ends with, and what it costs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hawq.bitconfig import BitConfig, UnitBits
from hawq.errors import UsageError
from hawq.graph.ir import FloatGraph
from hawq.graph.structure import pinned_units, tie_groups
from search.budgets import Budget
from search.costs import COSTS, Cost, UnitFacts, total_cost, unit_facts
from search.problem import assign, build_problem, expand_pins, options, searched_groups
from search.solve import Problem, Solution, solve

__all__ = ["Omega", "Question", "Scheme", "find_scheme", "pose", "scheme_costs", "scheme_name"]

Omega = Callable[[str, UnitBits], float]
"""Expected rise of the loss when a unit, named first, has the given bits."""


@dataclass(frozen=True)
class Question:
    """Ask for a scheme of one network.

    Attributes:
        arch: the network's name, for the bit config.
        graph: the network.
        budgets: one or more; they hold at once.
        allowed: bits a unit may get.
        pins: shell pattern over unit names -> bits; overrules `allowed`, tied units included. The meaning of a
            relative budget does not change with pins.
        costs: what the totals list.
    """

    arch: str
    graph: FloatGraph
    budgets: tuple[Budget, ...]
    allowed: tuple[UnitBits, ...] = options((4, 8))
    pins: Mapping[str, UnitBits] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=lambda: COSTS)

    @property
    def name(self) -> str:
        """Of the scheme that answers."""
        return scheme_name(self.budgets)

    @cached_property
    def facts(self) -> dict[str, UnitFacts]:
        """Weights and MACs of every unit."""
        return unit_facts(self.graph)

    def check(self) -> None:
        """Find what is wrong with the question before anything is measured.

        Raises:
            UsageError: no budgets, or a pin that matches nothing.
            HawqError: nothing to search, or budgets that no scheme meets.
        """
        solve(pose(self, lambda unit, bits: 0.0))

    @cached_property
    def ties(self) -> list[tuple[str, ...]]:
        """The units that share bits."""
        return tie_groups(self.graph)

    @cached_property
    def pinned(self) -> set[str]:
        """The units that stay at 8 bits in every scheme."""
        return pinned_units(self.graph)

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The tie groups that are searched."""
        return searched_groups(list(self.graph.units), self.ties, self.pinned)


@dataclass(frozen=True)
class Scheme:
    """Hold the outcome of a search.

    Attributes:
        config: bits of every unit, pinned ones included.
        solution: of the integer program.
        facts: weights and MACs of every unit.
        totals: scheme -> cost name -> cost of the whole network, for this scheme, `uniform8` and `uniform4`.
        question: that it answers.
    """

    config: BitConfig
    solution: Solution
    facts: Mapping[str, UnitFacts]
    totals: Mapping[str, Mapping[str, float]]
    question: Question


def scheme_name(budgets: Sequence[Budget]) -> str:
    """Return the name of the scheme that meets the budgets, for example `bops0.5+size=8MB`."""
    return "+".join(dict.fromkeys(budget.name for budget in budgets))


def scheme_costs(
    config: BitConfig, facts: Mapping[str, UnitFacts], costs: Mapping[str, Cost] = COSTS
) -> dict[str, float]:
    """Return the cost of a bit config by cost name, each in its plain unit (bytes, bit operations)."""
    return {name: total_cost(cost, facts.values(), config.units) for name, cost in costs.items()}


def pose(question: Question, omega: Omega) -> Problem:
    """Return the integer program of a question.

    Raises:
        UsageError: no budgets, or a pin that matches nothing.
        HawqError: nothing is left to search.
    """
    if not question.budgets:
        raise UsageError("a search needs at least one budget, for example bops0.5")
    budgets = list({budget.name: budget for budget in question.budgets}.values())
    pins = expand_pins(question.pins, question.groups)
    table = {
        unit: {bits: omega(unit, bits) for bits in ([pins[unit]] if unit in pins else question.allowed)}
        for group in question.groups
        for unit in group
    }
    return build_problem(question.facts, question.ties, question.pinned, table, budgets)


def find_scheme(question: Question, omega: Omega) -> Scheme:
    """Return the scheme of least total Omega that meets every budget.

    Raises:
        UsageError: as `pose`.
        HawqError: the budgets cannot be met.
    """
    solution = solve(pose(question, omega))
    facts = question.facts
    config = BitConfig(question.arch, question.name, assign(facts, solution.bits))
    uniform = [
        BitConfig(question.arch, f"uniform{b}", assign(facts, dict.fromkeys(solution.bits, UnitBits(b, b))))
        for b in (8, 4)
    ]
    totals = {c.scheme: scheme_costs(c, facts, question.costs) for c in [config, *uniform]}
    return Scheme(config, solution, facts, totals, question)
