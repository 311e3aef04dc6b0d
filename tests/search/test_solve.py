"""The integer program against brute force, on small random problems, and by its rules."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError
from search.backend import minimise
from search.solve import Constraint, Problem, solve

TWO, FOUR, EIGHT = (UnitBits(b, b) for b in (2, 4, 8))
BITS = (TWO, UnitBits(2, 8), FOUR, EIGHT)


@st.composite
def problems(draw):
    """Draw up to five tie groups of one or two units, and up to three budgets; integers, so that sums are exact."""
    bits = BITS[draw(st.integers(0, 2)) :]
    sizes = draw(st.lists(st.integers(1, 2), min_size=1, max_size=5))
    names = iter("abcdefghij")
    groups = tuple(tuple(next(names) for _ in range(size)) for size in sizes)
    units = [unit for group in groups for unit in group]
    table = st.fixed_dictionaries({u: st.fixed_dictionaries({b: st.integers(0, 50) for b in bits}) for u in units})
    omega = draw(table)
    constraints = []
    for index in range(draw(st.integers(0, 3))):
        costs = draw(table)
        constraints.append(
            Constraint(f"c{index}", costs, draw(st.integers(0, 60 * len(units))), draw(st.integers(0, 5)))
        )
    return Problem(groups, omega, tuple(constraints))


def _assignments(problem):
    for widths in itertools.product(*(problem.candidates(group) for group in problem.groups)):
        bits = {u: b for group, b in zip(problem.groups, widths, strict=True) for u in group}
        if all(c.total(bits) <= c.limit for c in problem.constraints):
            yield bits


@settings(max_examples=150, deadline=None)
@given(problems())
def test_the_solver_finds_what_brute_force_finds(problem):
    feasible = list(_assignments(problem))
    if not feasible:
        with pytest.raises(HawqError, match="infeasible with"):
            solve(problem)
        return
    found = solve(problem)
    best = min(problem.objective(bits) for bits in feasible)
    assert found.objective == best == problem.objective(found.bits)
    assert found.bits in feasible
    assert found.gap == 0
    assert solve(problem) == found


@pytest.mark.filterwarnings("ignore:PULP_CBC_CMD:DeprecationWarning")
@settings(max_examples=40, deadline=None)
@given(problems())
def test_cbc_and_highs_choose_the_same_objective(problem):
    choices = [(i, b) for i, group in enumerate(problem.groups) for b in problem.candidates(group)]
    objective = {(i, b): sum(problem.omega[u][b] for u in problem.groups[i]) / 100 for i, b in choices}
    values = []
    for solver in ("HiGHS", "CBC"):
        found = minimise(choices, objective, [], 10.0, (solver,))
        assert found.solver == solver
        values.append(round(sum(objective[choice] for choice in found.chosen), 9))
    assert values[0] == values[1]


def _problem(omega, cost, limit, fixed=0.0):
    return Problem(tuple((u,) for u in omega), omega, (Constraint("size0.5", cost, limit, fixed),))


def test_of_two_equal_units_the_earlier_gets_the_bits():
    omega = {"first": {FOUR: 1.0, EIGHT: 0.0}, "second": {FOUR: 1.0, EIGHT: 0.0}}
    cost = {"first": {FOUR: 4, EIGHT: 8}, "second": {FOUR: 4, EIGHT: 8}}
    assert solve(_problem(omega, cost, 12)).bits == {"first": EIGHT, "second": FOUR}


def test_a_unit_that_does_not_care_gets_the_fewest_bits():
    omega = {"free": {FOUR: 0.0, EIGHT: 0.0}, "dear": {FOUR: 1.0, EIGHT: 0.0}}
    cost = {"free": {FOUR: 4, EIGHT: 8}, "dear": {FOUR: 4, EIGHT: 8}}
    assert solve(_problem(omega, cost, 100)).bits == {"free": FOUR, "dear": EIGHT}


def test_tiny_sensitivities_still_decide():
    omega = {"a": {FOUR: 3e-12, EIGHT: 1e-12}, "b": {FOUR: 9e-12, EIGHT: 1e-12}}
    cost = {"a": {FOUR: 4, EIGHT: 8}, "b": {FOUR: 4, EIGHT: 8}}
    solution = solve(_problem(omega, cost, 12))
    assert solution.bits == {"a": FOUR, "b": EIGHT}
    assert solution.objective == 4e-12


def test_a_limit_met_exactly_is_met():
    cost = {"a": {FOUR: 0.1, EIGHT: 0.2}, "b": {FOUR: 0.1, EIGHT: 0.2}, "c": {FOUR: 0.1, EIGHT: 0.2}}
    omega = {unit: {FOUR: 1.0, EIGHT: 0.0} for unit in cost}
    assert solve(_problem(omega, cost, 0.1 + 0.2 + 0.3)).bits == dict.fromkeys("abc", EIGHT)  # 0.2 * 3 > 0.6 in float64


def test_an_infeasible_budget_names_the_smallest_limit_that_works():
    omega = {"a": {FOUR: 1.0, EIGHT: 0.0}}
    with pytest.raises(HawqError) as error:
        solve(_problem(omega, {"a": {FOUR: 4, EIGHT: 8}}, 5, fixed=2))
    assert str(error.value) == (
        "infeasible with 4, 8 bits: size0.5 allows 5, the cheapest scheme needs 6. "
        "Raise the budget or allow fewer bits (--bits 2,4,8)"
    )


def test_budgets_that_only_clash_together_are_told_apart():
    """Latency may fall with more bits, so that each limit alone can be met, but not both."""
    omega = {"a": {FOUR: 1.0, EIGHT: 0.0}}
    budgets = (Constraint("size", {"a": {FOUR: 4, EIGHT: 8}}, 5), Constraint("latency", {"a": {FOUR: 3, EIGHT: 1}}, 2))
    with pytest.raises(HawqError) as error:
        solve(Problem((("a",),), omega, budgets))
    assert "size allows 5, with the other budgets kept the cheapest scheme needs 8" in str(error.value)
    assert "latency allows 2, with the other budgets kept the cheapest scheme needs 3" in str(error.value)


def test_tied_units_without_a_common_width_are_refused():
    with pytest.raises(HawqError, match="a, b share bits, but no bit width is allowed for all"):
        solve(Problem((("a", "b"),), {"a": {FOUR: 1.0}, "b": {EIGHT: 1.0}}, ()))
