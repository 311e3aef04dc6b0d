"""Recognise activation functions that a model writes out: x * sigmoid(x), relu6(x + 3) / 6, x * relu6(x + 3) / 6."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isclose

from hawq.errors import HawqError
from hawq.graph.curves import Curve
from hawq.graph.fuse import drop_dead
from hawq.graph.ir import Clamp, FloatGraph, Mul, Node, Op, Relu, Unary
from hawq.graph.site import Site

__all__ = ["Scaled", "recognise_curves"]

_RELU6 = Relu(Clamp(0.0, 6.0))
_GATED = {Curve.SIGMOID: Curve.SILU, Curve.HARD_SIGMOID: Curve.HARD_SWISH}
"""f(x) -> x f(x)."""


@dataclass(frozen=True)
class Scaled(Op):
    """x * factor + offset. Stands between tracing and this pass only: no finished graph holds one."""

    factor: float
    offset: float
    site: Site

    def is_near(self, factor: float, offset: float) -> bool:
        """Tell whether its numbers are these, up to rounding."""
        return isclose(self.factor, factor) and isclose(self.offset, offset)


def recognise_curves(graph: FloatGraph) -> FloatGraph:
    """Replace what computes a smooth activation function by one Unary, and drop what only served it.

    Raises:
        HawqError: a number is added to an activation, or multiplies it, in any other way.
    """
    nodes: dict[str, Node] = {}
    for node in graph.nodes.values():
        found = _curve(node, nodes)
        nodes[node.name] = node if found is None else replace(node, op=Unary(found[0]), inputs=(found[1],))
    graph = drop_dead(replace(graph, nodes=nodes))
    for node in graph.nodes.values():
        if isinstance(op := node.op, Scaled):
            raise HawqError(
                f"{op.site}: computes x * {op.factor:g} + {op.offset:g} of an activation x; put the numbers into the "
                "weights and bias of the layer before, or use the module of the activation function this is part of"
            )
    return graph


def _curve(node: Node, nodes: Mapping[str, Node]) -> tuple[Curve, str] | None:
    """Return the function that a node is the last step of, and the tensor it is of."""
    match node.op:
        case Mul():
            for gate, value in (node.inputs, node.inputs[::-1]):
                op = nodes[gate].op
                if isinstance(op, Unary) and op.curve in _GATED and nodes[gate].inputs == (value,):
                    return _GATED[op.curve], value
        case Scaled() as op if op.is_near(1 / 6, 0):
            before = nodes[node.inputs[0]]
            if (value := _ramp(before, nodes)) is not None:
                return Curve.HARD_SIGMOID, value
            if isinstance(before.op, Mul):
                for ramp, value in (before.inputs, before.inputs[::-1]):
                    if _ramp(nodes[ramp], nodes) == value:
                        return Curve.HARD_SWISH, value
    return None


def _ramp(node: Node, nodes: Mapping[str, Node]) -> str | None:
    """Return x where a node is relu6(x + 3)."""
    if node.op != _RELU6:
        return None
    before = nodes[node.inputs[0]]
    return before.inputs[0] if isinstance(before.op, Scaled) and before.op.is_near(1, 3) else None
