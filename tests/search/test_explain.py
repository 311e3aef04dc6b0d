"""Shadow prices against knapsacks solved by hand; steps against costs that are added up anew."""

import pytest
from networks import SIZE, build

from hawq.bitconfig import BitConfig, UnitBits
from hawq.errors import HawqError
from hawq.graph.trace import trace
from hawq.schemes import uniform
from hawq.sensitivity.result import Operand, Sensitivity, Term, UnitSensitivity
from search import COSTS, Question, find_scheme, options, parse_budget, scheme_costs
from search.backend import Row, relax
from search.explain import explain
from search.solve import Constraint, Problem, shadow_prices

FOUR, EIGHT = UnitBits(4, 4), UnitBits(8, 8)


def _knapsack(*constraints):
    """Return three units that gain 8, 6 and 1 when they go from 4 to 8 bits."""
    omega = {unit: {FOUR: gain, EIGHT: 0.0} for unit, gain in (("a", 8.0), ("b", 6.0), ("c", 1.0))}
    return Problem((("a",), ("b",), ("c",)), omega, constraints)


SIZES = {unit: {FOUR: 4.0, EIGHT: 8.0} for unit in "abc"}


@pytest.mark.parametrize(
    ("limit", "price"),
    [
        (14, 8 / 4),  # 12 of 14 are spent at 4 bits, a is half way up
        (18, 6 / 4),  # a is up, b half way
        (22, 1 / 4),  # c is half way
        (30, 0),  # all are up
    ],
)
def test_the_price_is_the_gain_per_cost_of_the_unit_that_is_half_way_up(limit, price):
    assert shadow_prices(_knapsack(Constraint("size", SIZES, limit))) == {"size": pytest.approx(price)}


def test_prices_are_per_plain_unit_whatever_the_scale():
    huge = {unit: {bits: cost * 1e9 for bits, cost in row.items()} for unit, row in SIZES.items()}
    assert shadow_prices(_knapsack(Constraint("bops", huge, 18e9 + 5, 5))) == {"bops": pytest.approx(1.5e-9)}


def test_only_the_limit_that_binds_has_a_price():
    prices = shadow_prices(_knapsack(Constraint("size", SIZES, 18), Constraint("bops", SIZES, 23)))
    assert prices == {"size": pytest.approx(1.5), "bops": 0}


def test_a_limit_out_of_reach_has_no_price():
    with pytest.raises(HawqError, match="size allows 11, the cheapest scheme needs 12"):
        shadow_prices(_knapsack(Constraint("size", SIZES, 11)))


@pytest.mark.filterwarnings("ignore:PULP_CBC_CMD:DeprecationWarning")
@pytest.mark.parametrize("solver", ["HiGHS", "CBC"])
def test_both_solvers_relax(solver):
    choices = [(0, FOUR), (0, EIGHT)]
    row = Row({choices[0]: 0.5, choices[1]: 1.0}, 0.75)
    objective = {choices[0]: 1.0, choices[1]: 0.0}
    assert relax(choices, objective, [row], solvers=(solver,)) == (pytest.approx(2.0),)
    assert relax(choices, objective, [Row(row.coefficients, 0.25)], solvers=(solver,)) is None


@pytest.fixture(scope="module")
def graph():
    return trace(build("Residual"), (3, SIZE, SIZE))


@pytest.fixture(scope="module")
def measured(graph):
    """Return sensitivities of two batches, different for every unit, that fall fourfold with every bit."""
    factor = {bits: 4.0**-bits for bits in range(2, 9)}
    units = {
        name: UnitSensitivity(1, (Term(Operand.WEIGHT, factor, (0.5 + index, 1.5 + index)),))
        for index, name in enumerate(graph.units)
    }
    return Sensitivity("hessian", "key", (("x", 8), ("y", 8)), {}, {}, units)


def test_one_step_changes_what_the_costs_say(graph, measured):
    question = Question("net", graph, (parse_budget("bops0.5"), parse_budget("size=2KiB")), options((2, 4, 8)))
    config = find_scheme(question, measured.omega).config
    found = explain(question, config, measured)
    before = scheme_costs(config, question.facts)
    assert sum(unit.costs["size"] for unit in found.units.values()) == before["size"]
    for step in found.steps:
        after = BitConfig("net", "step", {**config.units, **step.after})
        costs = scheme_costs(after, question.facts)
        assert step.costs == {name: costs[name] - before[name] for name in COSTS}
        omega = sum(measured.omega(u, after.units[u]) - measured.omega(u, config.units[u]) for u in graph.units)
        assert step.omega == pytest.approx(omega)
        assert step.fits == all(costs[budget.cost] <= budget.limit for budget in found.budgets.values())
        paid = sum(budget.price * step.costs[budget.cost] for budget in found.budgets.values())
        assert step.worth == pytest.approx(-step.omega / paid)


def test_tied_units_step_together_to_the_next_width(graph, measured):
    units = {**uniform("net", graph, 4).units, "conv1": UnitBits(2, 4), "conv2": EIGHT}
    question = Question("net", graph, (), options((2, 4, 8)))
    found = explain(question, BitConfig("net", "own", units), measured)
    moves = {(tuple(step.before), step.up): step.after for step in found.steps}
    assert moves[("conv1", "down"), True] == {"conv1": UnitBits(4, 8), "down": EIGHT}
    assert moves[("conv1", "down"), False] == {"conv1": UnitBits(2, 2), "down": UnitBits(2, 2)}
    assert (("conv2",), True) not in moves
    assert moves[("conv2",), False] == {"conv2": FOUR}
    assert all(step.worth is None and step.fits for step in found.steps)
    assert not found.budgets


def test_units_say_what_they_suffer_with_its_error(graph, measured):
    question = Question("net", graph, ())
    unit = explain(question, uniform("net", graph, 4), measured).units["conv1"]
    index = list(graph.units).index("conv1")
    assert unit.bits == FOUR
    assert unit.omega == pytest.approx((1 + index) / 256)
    assert unit.error == pytest.approx(0.5 / 256)


def test_the_price_separates_what_the_scheme_took_from_what_it_left(graph, measured):
    """With a single binding limit the steps up earn at most the price, the steps down lose at least it, but one."""
    question = Question("net", graph, (parse_budget("bops0.5"),))
    found = explain(question, find_scheme(question, measured.omega).config, measured)
    ups = [step.worth for step in found.steps if step.up]
    downs = [step.worth for step in found.steps if not step.up]
    assert max(ups) == pytest.approx(1)
    assert min(downs) >= 1 - 1e-9
