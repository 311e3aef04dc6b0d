"""Decide which ops one kernel computes: limits, a residual addition and requantizations go behind what they read."""

from collections import defaultdict
from collections.abc import Callable, Collection

from hawq.integer import IntegerProgram
from hawq.integer import ops as o

__all__ = ["fused"]

_PRODUCTS = (o.Conv2d, o.Linear)

_Followers = Callable[[o.Op], Collection[type[o.Op]]]


def fused(program: IntegerProgram, followers: _Followers) -> list[tuple[o.Op, ...]]:
    """Return the ops of every kernel, kernels in an order in which they can run.

    A Limit joins the convolution or linear layer that only it reads, as does an Add, of two the later one; a Requantize
    joins the kernel that makes what it reads.

    Args:
        program: validated.
        followers: return the kinds of ops that a kernel beginning with an op may compute behind it.
    """
    readers: dict[str, list[o.Op]] = defaultdict(list)
    for op in program.ops:
        for name in op.inputs:
            readers[name].append(op)
    outputs = {output.tensor for output in program.outputs.values()}
    order = {op.name: index for index, op in enumerate(program.ops)}
    kernels: dict[str, list[o.Op]] = {}  # by the op that says where the kernel stands
    place: dict[str, str] = {}  # op -> key of its kernel

    def open_to(op: o.Op, name: str) -> bool:
        """Tell whether a tensor is made by a product alone in its kernel, and an op that alone reads it may join."""
        members = kernels.get(name, ())
        alone = len(members) == 1 and isinstance(members[0], _PRODUCTS) and not members[0].accumulates
        only = readers[name] == [op] and name not in outputs
        return alone and only and type(op) in followers(members[0])

    for op in program.ops:
        match op:
            case o.Add():
                products = [name for name in op.inputs if open_to(op, name)]
                latest = max(products, key=order.__getitem__, default=None)
                kernels[op.name] = [*(kernels.pop(latest) if latest else ()), op]
            case o.Limit() if open_to(op, op.inputs[0]):
                kernels[op.name] = [*kernels.pop(op.inputs[0]), op]
            case o.Requantize() if o.Requantize in followers(kernels[place[op.inputs[0]]][0]):
                kernels[place[op.inputs[0]]].append(op)
                place[op.name] = place[op.inputs[0]]
                continue
            case _:
                kernels[op.name] = [op]
        for member in kernels[op.name]:
            place[member.name] = op.name
    return [tuple(members) for members in kernels.values()]
