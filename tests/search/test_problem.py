import pytest

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError
from search.budgets import parse_budget
from search.costs import UnitFacts
from search.problem import assign, build_problem
from search.solve import solve

FACTS = {
    "stem": UnitFacts("stem", 100, 1000),
    "conv1": UnitFacts("conv1", 200, 500),
    "down": UnitFacts("down", 40, 100),
    "conv2": UnitFacts("conv2", 300, 700),
    "head": UnitFacts("head", 50, 50),
}
TIES = [("conv1", "down")]
FOUR, EIGHT = UnitBits(4, 4), UnitBits(8, 8)
OMEGA = {name: {FOUR: 1.0, EIGHT: 0.0} for name in FACTS}


def _build(*budgets, pinned=("stem", "head"), ties=TIES):
    return build_problem(FACTS, ties, pinned, OMEGA, [parse_budget(text) for text in budgets])


def test_relative_limits_cover_the_searched_units_and_costs_the_whole_network():
    problem = _build("size0.5", "bops0.25")
    pinned_bytes = 150
    assert problem.constraints[0].limit == pinned_bytes + 270 + 0.5 * 270
    assert problem.constraints[1].limit == 1050 * 64 + 1300 * 16 + 0.25 * 1300 * 48
    assert problem.groups == (("conv1", "down"), ("conv2",))
    solution = solve(problem)
    assert solution.bits == {"conv1": FOUR, "down": FOUR, "conv2": FOUR}
    assert solution.costs["size0.5"] == pinned_bytes + 270


def test_tied_units_get_equal_bits_and_pinned_ones_stay():
    solution = solve(_build("size0.5"))
    assert solution.bits == {"conv1": EIGHT, "down": EIGHT, "conv2": FOUR}
    bits = assign(FACTS, solution.bits)
    assert list(bits) == list(FACTS)
    assert bits["stem"] == bits["head"] == bits["down"] == UnitBits(8, 8)
    assert bits["conv2"] == UnitBits(4, 4)


def test_a_unit_tied_to_a_pinned_one_is_pinned():
    problem = _build("size=1MB", ties=[("stem", "conv1")])
    assert problem.groups == (("down",), ("conv2",))
    assert problem.constraints[0].fixed == 350


def test_a_larger_alpha_never_has_a_larger_objective():
    objectives = [solve(_build(f"bops{alpha / 10:g}")).objective for alpha in range(11)]
    assert objectives == sorted(objectives, reverse=True)
    assert objectives[0] == 3
    assert objectives[-1] == 0


@pytest.mark.parametrize("ties", [[("conv1", "tail")], [("conv1", "down"), ("down", "conv2")]])
def test_ties_that_do_not_fit_are_refused(ties):
    with pytest.raises(HawqError, match=r"name a unit twice or one the network does not have: (tail|down)"):
        _build("size0.5", ties=ties)


def test_nothing_to_search_is_said():
    with pytest.raises(HawqError, match="use the scheme uniform8"):
        _build("size0.5", pinned=tuple(FACTS))
