"""The front: monotone, optimal at every limit, and the uniform schemes at its ends."""

import itertools
from dataclasses import replace

import pytest
from networks import SIZE, build

from hawq.bitconfig import UnitBits
from hawq.graph.trace import trace
from search import COSTS, Question, find_scheme, options, parse_budget
from search.costs import Cost
from search.pareto import pareto_front, pareto_fronts

FOUR, EIGHT = UnitBits(4, 4), UnitBits(8, 8)


@pytest.fixture(scope="module")
def question():
    return Question("net", trace(build("Residual"), (3, SIZE, SIZE)), ())


def _omega(unit, bits):
    return (1 + sum(map(ord, unit)) % 7) * 4.0**-bits.weight


@pytest.mark.parametrize("widths", [(4, 8), (2, 4, 8)])
def test_the_cost_rises_and_omega_falls(question, widths):
    fronts = pareto_fronts(replace(question, allowed=options(widths)), _omega)
    assert list(fronts) == ["size", "bops"]
    for name, front in fronts.items():
        assert len(front) > 2
        for cheap, dear in itertools.pairwise(front):
            assert cheap.costs[name] < dear.costs[name]
            assert cheap.objective > dear.objective
            assert cheap.alpha < dear.alpha


def test_no_assignment_dominates_a_point(question):
    """Every assignment of the network, one by one."""
    units = [unit for group in question.groups for unit in group]
    fixed = [fact for name, fact in question.facts.items() if name not in units]
    for name, front in pareto_fronts(question, _omega).items():
        cost = COSTS[name]
        rest = sum(cost.of(fact, EIGHT) for fact in fixed)
        for choice in itertools.product((FOUR, EIGHT), repeat=len(question.groups)):
            bits = {u: b for group, b in zip(question.groups, choice, strict=True) for u in group}
            total = rest + sum(cost.of(question.facts[u], b) for u, b in bits.items())
            objective = sum(_omega(u, b) for u, b in bits.items())
            assert not any(total <= point.costs[name] and objective < point.objective * (1 - 1e-9) for point in front)


def test_a_point_is_what_the_search_finds_at_its_limit(question):
    ends = pareto_front(question, _omega, COSTS["bops"])
    assert (ends[0].alpha, set(ends[0].bits.values())) == (0, {FOUR})
    assert (ends[-1].alpha, set(ends[-1].bits.values())) == (1, {EIGHT})
    for point in ends:
        found = find_scheme(replace(question, budgets=(parse_budget(f"bops{point.alpha}"),)), _omega)
        assert found.solution.bits == point.bits
        assert found.totals[found.config.scheme] == point.costs


def test_fewer_than_four_bits_lie_below_alpha_0(question):
    front = pareto_front(replace(question, allowed=options((2, 4, 8))), _omega, COSTS["size"])
    assert front[0].alpha == pytest.approx(-0.5)
    assert front[-1].alpha == 1


def test_pins_shorten_the_front(question):
    front = pareto_front(replace(question, pins={"conv2": EIGHT}), _omega, COSTS["size"])
    assert 0 < front[0].alpha < front[-1].alpha == 1
    assert all(point.bits["conv2"] == EIGHT for point in front)


def test_a_cost_that_bits_do_not_change_has_one_point(question):
    front = pareto_front(question, _omega, Cost("latency", (), "ms", {"ms": 1}, lambda unit, bits: 1.0))
    assert [(point.alpha, point.costs["latency"]) for point in front] == [(None, len(question.facts))]
    assert set(front[0].bits.values()) == {EIGHT}
