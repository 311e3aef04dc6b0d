"""Choose bit widths: exact costs, budgets, and the integer linear program that weighs sensitivity against them."""

from search.budgets import Budget, parse_budget
from search.costs import COSTS, Cost, UnitFacts, total_cost, unit_facts
from search.problem import build_problem, options
from search.scheme import Omega, Question, Scheme, find_scheme, pose, scheme_costs, scheme_name
from search.solve import Constraint, Problem, Solution, solve

__all__ = [
    "COSTS",
    "Budget",
    "Constraint",
    "Cost",
    "Omega",
    "Problem",
    "Question",
    "Scheme",
    "Solution",
    "UnitFacts",
    "build_problem",
    "find_scheme",
    "options",
    "parse_budget",
    "pose",
    "scheme_costs",
    "scheme_name",
    "solve",
    "total_cost",
    "unit_facts",
]
