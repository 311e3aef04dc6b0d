"""Choose bit widths: exact costs, budgets, and the integer linear program that weighs sensitivity against them."""

from search.budgets import Budget, parse_budget
from search.costs import COSTS, Cost, UnitFacts, total_cost, unit_facts
from search.problem import build_problem
from search.scheme import Scheme, find_scheme, scheme_costs, scheme_name
from search.solve import Constraint, Problem, Solution, solve

__all__ = [
    "COSTS",
    "Budget",
    "Constraint",
    "Cost",
    "Problem",
    "Scheme",
    "Solution",
    "UnitFacts",
    "build_problem",
    "find_scheme",
    "parse_budget",
    "scheme_costs",
    "scheme_name",
    "solve",
    "total_cost",
    "unit_facts",
]
