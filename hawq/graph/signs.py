"""Find the tensors that cannot be negative, from the graph alone."""

from hawq.graph.ir import (
    Add,
    AvgPool2d,
    Clamp,
    Concat,
    Flatten,
    FloatGraph,
    MaxPool2d,
    Mul,
    Resize,
    Unary,
)

__all__ = ["non_negative"]


def non_negative(graph: FloatGraph) -> set[str]:
    """Return the names of the tensors whose every value is provably >= 0.

    They stand behind a clamp from 0 (ReLU, ReLU6) or a function like the sigmoid, or add, multiply, join, pool, resize
    or reshape only such tensors.
    """
    found: set[str] = set()
    for node in graph.nodes.values():
        clamp: Clamp | None = getattr(node.op, "clamp", None)
        clamped = clamp is not None and clamp.lo is not None and clamp.lo >= 0
        positive = isinstance(node.op, Unary) and node.op.curve.non_negative
        keeps = isinstance(node.op, Add | AvgPool2d | Concat | Flatten | MaxPool2d | Mul | Resize | Unary)
        if clamped or positive or (keeps and all(name in found for name in node.inputs)):
            found.add(node.name)
    return found
