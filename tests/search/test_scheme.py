"""From a graph to a bit config: ties and pinned units come from the graph, costs count every unit."""

import pytest
import torch

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError, UsageError
from hawq.graph import ir
from search.budgets import parse_budget
from search.problem import options
from search.scheme import Question, find_scheme, scheme_name

RELU = ir.Clamp(0.0, None)


def _conv(name, source, outputs, inputs, kernel, tensors, clamp=RELU):
    tensors[f"{name}.weight"] = torch.zeros(outputs, inputs, kernel, kernel)
    side = kernel // 2
    op = ir.Conv2d(f"{name}.weight", None, (1, 1), (side,) * 4, (1, 1), 1, None, clamp)
    return ir.Node(name, op, (source,), (outputs, 4, 4))


@pytest.fixture
def graph():
    """Return a stem, a residual block with a downsample branch, and a classifier."""
    tensors = {"head.weight": torch.zeros(10, 8 * 16)}
    nodes = [
        ir.Node("x", ir.Input(), (), (3, 4, 4)),
        _conv("stem", "x", 4, 3, 3, tensors),
        _conv("conv1", "stem", 8, 4, 3, tensors),
        _conv("conv2", "conv1", 8, 8, 3, tensors, clamp=None),
        _conv("down", "stem", 8, 4, 1, tensors, clamp=None),
        ir.Node("sum", ir.Add(RELU), ("conv2", "down"), (8, 4, 4)),
        ir.Node("flat", ir.Flatten(), ("sum",), (128,)),
        ir.Node("head", ir.Linear("head.weight", None), ("flat",), (10,)),
    ]
    return ir.FloatGraph({node.name: node for node in nodes}, {"logits": "head"}, tensors)


def _omega(**dear):
    return lambda unit, bits: dear.get(unit, 1.0) * 4.0**-bits.weight + 1e-3 * 4.0**-bits.activation


FOUR_OR_EIGHT = options((4, 8))


def _find(graph, *budgets, allowed=FOUR_OR_EIGHT, pins=None, **dear):
    budgets = tuple(parse_budget(text) for text in budgets)
    return find_scheme(Question("net", graph, budgets, allowed, pins or {}), _omega(**dear))


def test_ties_and_pinned_units_come_from_the_graph(graph):
    found = _find(graph, "size0.5", down=100.0)
    assert list(found.solution.bits) == ["conv1", "down", "conv2"]
    assert found.config.scheme == "size0.5"
    assert dict(found.config.units) == {
        "stem": UnitBits(8, 8), "conv1": UnitBits(8, 8), "conv2": UnitBits(4, 4), "down": UnitBits(8, 8),
        "head": UnitBits(8, 8),
    }  # fmt: skip
    assert list(found.config.units) == list(graph.units)


def test_totals_count_every_unit(graph):
    totals = _find(graph, "size0.5").totals
    stem, conv1, conv2, down, head = 108, 288, 576, 32, 1280
    assert list(totals) == ["size0.5", "uniform8", "uniform4"]
    assert totals["uniform8"]["size"] == stem + conv1 + conv2 + down + head
    assert totals["uniform4"]["size"] == stem + head + (conv1 + conv2 + down) / 2
    assert totals["uniform4"]["bops"] == 64 * (16 * stem + head) + 16 * 16 * (conv1 + conv2 + down)
    assert totals["uniform4"]["size"] <= totals["size0.5"]["size"] <= totals["uniform8"]["size"]


def test_several_budgets_hold_at_once_and_name_the_scheme(graph):
    found = _find(graph, "bops0.9", "size=1900B", "bops0.9")
    assert found.config.scheme == "bops0.9+size=1900B"
    assert set(found.solution.limits) == {"bops0.9", "size=1900B"}
    assert found.totals[found.config.scheme]["size"] <= 1900
    assert found.totals[found.config.scheme]["size"] == found.solution.costs["size=1900B"]


def test_an_absolute_budget_out_of_reach_needs_fewer_bits(graph):
    with pytest.raises(HawqError, match=r"size=1700B allows 0\.001622 MiB, the cheapest scheme needs 0\.001751 MiB"):
        _find(graph, "size=1700B")
    assert _find(graph, "size=1700B", allowed=options((2, 4, 8))).totals["size=1700B"]["size"] <= 1700


def test_weights_and_inputs_may_differ(graph):
    found = _find(graph, "size=1700B", "bops0.5", allowed=options((2, 4, 8), apart=True))
    assert found.config.units["conv2"].weight < found.config.units["conv2"].activation
    assert found.config.units["conv1"] == found.config.units["down"]
    assert found.totals[found.config.scheme]["size"] <= 1700


def test_pins_overrule_and_take_tied_units_along(graph):
    free, pinned = (
        _find(graph, "size0.75", conv2=100.0),
        _find(graph, "size0.75", conv2=100.0, pins={"d*": UnitBits(2, 2)}),
    )
    assert (free.config.units["conv2"], free.config.units["conv1"]) == (UnitBits(8, 8), UnitBits(4, 4))
    assert pinned.config.units["conv1"] == pinned.config.units["down"] == UnitBits(2, 2)
    assert pinned.solution.limits == free.solution.limits


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        ({"stage9.*": UnitBits(8, 8)}, "pin 'stage9.*' matches no unit that is searched"),
        ({"stem": UnitBits(4, 4)}, "first and last units stay at 8 bits"),
        ({"conv1": UnitBits(4, 4), "down": UnitBits(8, 8)}, "pins give conv1 both 4 and 8 bits, maybe through a tied"),
    ],
)
def test_pins_that_cannot_be_are_refused(graph, pins, message):
    with pytest.raises(UsageError) as error:
        _find(graph, "size0.5", pins=pins)
    assert message in str(error.value)


def test_names():
    assert scheme_name([parse_budget("bops_0.5"), parse_budget("size=8MB")]) == "bops0.5+size=8MB"


def test_no_budget_is_wrong_usage(graph):
    with pytest.raises(UsageError, match="at least one budget"):
        _find(graph)
