"""Plan once, at export, where the tensors of a network lie, so that running it allocates no memory.

TVM's own plan fills blocks in the order of the program and takes half as much again (ResNet-50: 7.7 MB for at most
4.8 MB of codes alive at a time). Tensors placed by falling size, each into the smallest block that is free while it
lives, come close to what is alive: Y. Pisarchyk, J. Lee, "Efficient Memory Management for Deep Neural Net Inference"
(arXiv 2001.03288), shared objects, greedy by size. Every tensor begins where its block does, because compiled kernels
refuse one that begins elsewhere.

Where calls may have any number of images, blocks are made for the most in one call, and a smaller call uses their
beginning: the system gives memory only to pages that are written. Blocks as large as each call needs would add up, for
TVM's allocator keeps those of every size it has ever seen.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, Op, Var
from tvm.tirx import IntImm

__all__ = ["Lifetime", "MemoryPlan", "assign", "plan_memory"]

_ALLOC = "relax.builtin.alloc_tensor"

_ROOM = 128 * 2**20
"""Bytes for images and blocks where calls may have any number of images: small enough for kernels to count codes, and
those of padded copies, in int32."""


@dataclass(frozen=True)
class Lifetime:
    """When a tensor is needed.

    Attributes:
        size: bytes, of one image.
        first: step that allocates it.
        last: last step that uses it.
    """

    size: int
    first: int
    last: int

    def meets(self, other: "Lifetime") -> bool:
        """Tell whether both are needed at some step."""
        return self.first <= other.last and other.first <= self.last


def assign(tensors: Sequence[Lifetime]) -> list[int]:
    """Return the block of every tensor; tensors of one block are never needed together, the first is the largest."""
    blocks: list[list[Lifetime]] = []
    places = [0] * len(tensors)
    for index in sorted(range(len(tensors)), key=lambda i: (-tensors[i].size, tensors[i].first)):
        tensor = tensors[index]
        free = (b for b in reversed(range(len(blocks))) if not any(tensor.meets(other) for other in blocks[b]))
        places[index] = next(free, len(blocks))
        if places[index] == len(blocks):
            blocks.append([])
        blocks[places[index]].append(tensor)
    return places


@dataclass(frozen=True)
class MemoryPlan:
    """Memory between image and logits.

    Attributes:
        images: the most in one call.
        bytes: of all blocks.
    """

    images: int
    bytes: int


@dataclass(frozen=True)
class _Layout:
    """Blocks of one function.

    Attributes:
        blocks: the block of each tensor, by the name it is allocated under.
        sizes: of the blocks, bytes for each image.
    """

    blocks: dict[Var, int]
    sizes: list[int]


def plan_memory(module: tvm.IRModule) -> tuple[tvm.IRModule, MemoryPlan]:
    """Place every tensor that a function does not return in a block that others use before and after it.

    What is returned is the caller's. It takes a block of its own where calls may have any number of images, and no
    block of the plan where they have one.

    Args:
        module: with the function `main`; the first dimension of every tensor are the images.

    Returns:
        The module, and the plan of `main`; blocks of its other functions hold as many images.
    """
    (image,) = module["main"].params
    batch = image.ty.shape.values[0]
    any_batch = not isinstance(batch, IntImm)
    size = sum(_layout(module["main"], results=False).sizes)
    images = max(1, _ROOM // (size + _bytes(image))) if any_batch else int(batch)
    placed = {
        name: _placed(function, _layout(function, results=any_batch), images)
        if isinstance(function, relax.Function)
        else function
        for name, function in module.functions_items()
    }
    return tvm.IRModule(placed, attrs=module.attrs), MemoryPlan(images, images * size)


def _layout(function: relax.Function, *, results: bool) -> _Layout:
    """Return the blocks of what a function allocates, those of what it returns only if told."""
    bindings = _bindings(function)
    returned = _returned(function, bindings)
    owner: dict[Var, Var] = {}  # every name of a tensor -> the name it was allocated under
    first: dict[Var, int] = {}
    last: dict[Var, int] = {}
    for step, binding in enumerate(bindings):
        if _calls(binding.value, _ALLOC):
            owner[binding.var] = binding.var
            first[binding.var] = step
        elif isinstance(binding.value, Var) and binding.value in owner:
            owner[binding.var] = owner[binding.value]
        for var in _used(binding.value):
            if var in owner:
                last[owner[var]] = step
    kept = {owner[var] for var in returned if var in owner}
    shared = [var for var in first if var not in kept]
    tensors = [Lifetime(_bytes(var), first[var], last.get(var, first[var])) for var in shared]
    blocks = dict(zip(shared, assign(tensors), strict=True))
    sizes = [max(t.size for t, b in zip(tensors, blocks.values(), strict=True) if b == block)
             for block in range(len(set(blocks.values())))]  # fmt: skip
    own = [var for var in first if var in kept and results]
    blocks.update(zip(own, itertools.count(len(sizes))))
    return _Layout(blocks, [*sizes, *map(_bytes, own)])


def _placed(function: relax.Function, layout: _Layout, images: int) -> relax.Function:
    storage: dict[int, Var] = {}
    shapes: dict[tuple[int, ...], Var] = {}
    rewritten = []

    def bound(name: str, kind: relax.Type, value: relax.Expr) -> Var:
        rewritten.append(relax.VarBinding(relax.Var(name, kind), value))
        return rewritten[-1].var

    for binding in _bindings(function):
        if binding.var in layout.blocks:
            block = layout.blocks[binding.var]
            if block not in storage:
                size = relax.ShapeExpr([images * layout.sizes[block]])
                call = relax.op.memory.alloc_storage(size, 0, "global", "uint8")
                storage[block] = bound(f"storage{block}", relax.AnyType(), call)
            shape, dtype = binding.value.args[:2]
            if not isinstance(shape.values[0], IntImm):  # then a call makes every shape, so it should do so once
                key = tuple(map(int, shape.values[1:]))
                if key not in shapes:
                    shapes[key] = bound(f"shape{len(shapes)}", relax.ShapeType(ndim=len(shape.values)), shape)
                shape = shapes[key]
            binding = relax.VarBinding(binding.var, relax.op.memory.alloc_tensor(storage[block], 0, shape, dtype))
        rewritten.append(binding)
    body = relax.SeqExpr([relax.BindingBlock(rewritten)], function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _bindings(function: relax.Function) -> list[relax.VarBinding]:
    return [binding for block in function.body.blocks for binding in block.bindings]


def _calls(value: relax.Expr, name: str) -> bool:
    return isinstance(value, Call) and isinstance(value.op, Op) and value.op.name == name


def _used(value: relax.Expr) -> Iterable[Var]:
    fields = value.args if isinstance(value, Call) else value.fields if isinstance(value, relax.Tuple) else [value]
    return [field for field in fields if isinstance(field, Var)]


def _returned(function: relax.Function, bindings: list[relax.VarBinding]) -> set[Var]:
    """Return every name under which a function's result, or a part of it, goes."""
    names = {function.body.body}
    for binding in reversed(bindings):
        if binding.var in names and isinstance(binding.value, Var | relax.Tuple):
            names.update(_used(binding.value))
    return names


def _bytes(var: Var) -> int:
    """Return the bytes of a tensor of one image; the first dimension are the images."""
    return math.prod(int(n) for n in var.ty.shape.values[1:]) * np.dtype(str(var.ty.dtype)).itemsize
