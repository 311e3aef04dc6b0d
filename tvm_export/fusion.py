"""Decide which ops one kernel computes: limits, a residual addition and requantizations go behind what they read."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from hawq.integer import IntegerProgram
from hawq.integer import ops as o

__all__ = ["fused"]

_PRODUCTS = (o.Conv2d, o.Linear)
_HEADS = (*_PRODUCTS, o.MaxPool2d, o.AvgPool2d, o.Add)


def fused(program: IntegerProgram, followers: Collection[type[o.Op]]) -> list[tuple[o.Op, ...]]:
    """Return the ops of every kernel, kernels in an order in which they can run.

    A Limit joins the convolution or linear layer that only it reads, as does an Add, of two the later one; a Requantize
    joins the kernel that makes what it reads.

    Args:
        program: validated.
        followers: ops that may join others.
    """
    readers: dict[str, list[o.Op]] = defaultdict(list)
    for op in program.ops:
        for name in op.inputs:
            readers[name].append(op)
    order = {op.name: index for index, op in enumerate(program.ops)}
    kernels: dict[str, list[o.Op]] = {}  # by the op that says where the kernel stands
    place: dict[str, str] = {}  # op -> key of its kernel

    for op in program.ops:
        match op:
            case o.Add() if o.Add in followers:
                products = [name for name in op.inputs if _is_open(kernels.get(name, ())) and readers[name] == [op]]
                latest = max(products, key=order.__getitem__, default=None)
                kernels[op.name] = [*(kernels.pop(latest) if latest else ()), op]
            case o.Limit() if o.Limit in followers and _is_open(kernels.get(op.inputs[0], ())):
                kernels[op.name] = [*kernels.pop(op.inputs[0]), op]
            case o.Requantize() if o.Requantize in followers and isinstance(kernels[place[op.inputs[0]]][0], _HEADS):
                kernels[place[op.inputs[0]]].append(op)
                place[op.name] = place[op.inputs[0]]
                continue
            case _:
                kernels[op.name] = [op]
        for member in kernels[op.name]:
            place[member.name] = op.name
    return [tuple(members) for members in kernels.values()]


def _is_open(members: Sequence[o.Op]) -> bool:
    """Tell whether a kernel is a product alone, whose codes an Add may take over."""
    return len(members) == 1 and isinstance(members[0], _PRODUCTS) and not members[0].accumulates
