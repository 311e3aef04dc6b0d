"""Choose bit widths: exact costs, budgets, and the integer linear program that weighs sensitivity against them."""

from search.budgets import Budget, parse_budget
from search.costs import COSTS, Cost, UnitFacts, total_cost, unit_facts
from search.problem import build_problem
from search.solve import Constraint, Problem, Solution, solve

__all__ = [
    "COSTS",
    "Budget",
    "Constraint",
    "Cost",
    "Problem",
    "Solution",
    "UnitFacts",
    "build_problem",
    "parse_budget",
    "solve",
    "total_cost",
    "unit_facts",
]
