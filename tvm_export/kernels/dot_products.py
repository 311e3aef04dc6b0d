"""Describe dot-product instructions to TVM: the same few activations by weights of 16 output channels, exact in int32.

TVM ships some that LLVM 22 rejects for their operand types, and one that saturates at 16 bits. Its module is not
imported either: it would parse 250 functions, each after a look at the whole call stack, which takes most of a minute.
Parsing happens on first use and not on import for the same reason: frames of the import system are what makes that look
slow.
"""

import functools
from collections.abc import Callable
from typing import Any

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from tvm_export.instructions import BLOCK, Instruction
from tvm_export.nibbles import high, low

__all__ = ["multiply_bytes", "multiply_nibbles"]

_HIGH_NIBBLES = 0xF0F0F0F0


def _add_products(instruction: Instruction, sums: Any, activations: Any, weights: Any) -> Any:
    """Return sums plus, each, the products of the same activations with weights of its own.

    Bytes are summed by the instruction itself; of 16-bit numbers it sums pairs of products, without the sums before.
    """
    lanes, total = instruction.lanes, f"int32x{instruction.lanes}"
    count = lanes * instruction.depth
    same = T.reinterpret(
        T.broadcast(T.reinterpret(activations, dtype="int32"), lanes), dtype=f"{instruction.operand}x{count}"
    )
    identifier = T.llvm_lookup_intrinsic_id(instruction.intrinsic)
    if instruction.operand == "int16":
        pairs = T.call_llvm_pure_intrin(identifier, same, T.cast(weights, f"int16x{count}"), dtype=total)
        return sums + pairs
    return T.call_llvm_pure_intrin(identifier, sums, same, T.reinterpret(weights, dtype=f"int8x{count}"), dtype=total)


def _register(
    name: str,
    instruction: Instruction,
    activations: int,
    dtype: str,
    product: Callable[..., Any],
    add_products: Callable[..., Any],
) -> str:
    """Register an operation on a block and return its name.

    Args:
        name: to register it under.
        instruction: that it is made of.
        activations: at once.
        dtype: of the weights, (16, depth).
        product: gives the term that activations `a` and weights `b` add to sum i at k, int32.
        add_products: adds all terms to a vector of sums, given the sums, `a`, `b` and the first channel of the vector.
    """
    operand, depth, lanes = instruction.operand, instruction.depth, instruction.lanes

    @T.prim_func(s_tir=True)
    def meaning(
        a: T.Buffer((activations,), operand, offset_factor=1),
        b: T.Buffer((BLOCK, depth), dtype, offset_factor=1),
        c: T.Buffer((BLOCK,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:BLOCK], a[0:activations], b[0:BLOCK, 0:depth])
            T.writes(c[0:BLOCK])
            for i in T.serial(0, BLOCK):
                for k in T.serial(0, depth):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        c[vi] = c[vi] + product(a, b, vi, vk)

    @T.prim_func(s_tir=True)
    def instructions(
        a: T.Buffer((activations,), operand, offset_factor=1),
        b: T.Buffer((BLOCK, depth), dtype, offset_factor=1),
        c: T.Buffer((BLOCK,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:BLOCK], a[0:activations], b[0:BLOCK, 0:depth])
            T.writes(c[0:BLOCK])
            for part in T.unroll(BLOCK // lanes):
                c[T.ramp(part * lanes, 1, lanes)] = add_products(
                    c.vload([part * lanes], dtype=f"int32x{lanes}"), a, b, part * lanes
                )

    TensorIntrin.register(name, meaning, instructions, override=True)
    return name


@functools.cache
def multiply_bytes(instruction: Instruction) -> str:
    """Register the product with weights of a byte each, (16, depth), and return its name."""
    depth, count = instruction.depth, instruction.lanes * instruction.depth

    def product(a: Any, b: Any, i: Any, k: Any) -> Any:
        return T.cast(a[k], "int32") * T.cast(b[i, k], "int32")

    def add_products(sums: Any, a: Any, b: Any, first: Any) -> Any:
        activations = a.vload([0], f"{instruction.operand}x{depth}")
        return _add_products(instruction, sums, activations, b.vload([first, 0], dtype=f"int8x{count}"))

    return _register(f"hawq.bytes {instruction.name}", instruction, depth, "int8", product, add_products)


@functools.cache
def multiply_nibbles(instruction: Instruction) -> str:
    """Register 16 times the product of 8 bytes with two weights a byte, (16, 4), and return its name.

    Both weights end in an upper nibble, where a signed byte is 16 times its code: two masks and a shift for the
    products of a whole vector.
    """
    lanes, depth = instruction.lanes, instruction.depth

    def product(a: Any, b: Any, i: Any, k: Any) -> Any:
        return T.cast(a[k], "int32") * low(b[i, k]) + T.cast(a[k + depth], "int32") * high(b[i, k])

    def add_products(sums: Any, a: Any, b: Any, first: Any) -> Any:
        pairs = T.reinterpret(b.vload([first, 0], dtype=f"uint8x{lanes * depth}"), dtype=f"uint32x{lanes}")
        mask = T.broadcast(T.uint32(_HIGH_NIBBLES), lanes)
        lows = T.bitwise_and(T.shift_left(pairs, T.broadcast(T.uint32(4), lanes)), mask)
        half = _add_products(instruction, sums, a.vload([0], f"uint8x{depth}"), lows)
        return _add_products(instruction, half, a.vload([depth], f"uint8x{depth}"), T.bitwise_and(pairs, mask))

    return _register(f"hawq.nibbles {instruction.name}", instruction, 2 * depth, "uint8", product, add_products)
