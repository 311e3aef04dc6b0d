"""Choose bit widths: exact costs, budgets, and the integer linear program that weighs sensitivity against them."""

from search.budgets import Budget, parse_budget
from search.costs import COSTS, Cost, UnitFacts, total_cost, unit_facts
from search.latency import LatencyTable, Timing, UniformRun, check_fits, latency_cost
from search.latency_files import load_table, save_table
from search.problem import build_problem, options
from search.scheme import Omega, Question, Scheme, find_scheme, pose, scheme_costs, scheme_name
from search.solve import Constraint, Problem, Solution, solve

__all__ = [
    "COSTS",
    "Budget",
    "Constraint",
    "Cost",
    "LatencyTable",
    "Omega",
    "Problem",
    "Question",
    "Scheme",
    "Solution",
    "Timing",
    "UniformRun",
    "UnitFacts",
    "build_problem",
    "check_fits",
    "find_scheme",
    "latency_cost",
    "load_table",
    "options",
    "parse_budget",
    "pose",
    "save_table",
    "scheme_costs",
    "scheme_name",
    "solve",
    "total_cost",
    "unit_facts",
]
