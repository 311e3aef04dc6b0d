"""Describe AVX512-VNNI to TVM: 4 unsigned by 16x4 signed bytes into 16 int32 sums, which wrap and never saturate.

TVM ships such an instruction that LLVM 22 rejects for its operand types. Its module is not imported either: it would
parse 250 functions, each after a look at the whole call stack, which takes most of a minute. Parsing happens on first
use and not on import for the same reason: frames of the import system are what makes that look slow.
"""

import functools
from collections.abc import Callable
from typing import Any

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from tvm_export.nibbles import high, low

__all__ = ["multiply_bytes", "multiply_nibbles"]

_HIGH_NIBBLES = 0xF0F0F0F0


def _products(sums: Any, bytes4: Any, weights: Any) -> Any:
    """Return 16 sums plus, each, the product of the same 4 bytes and 4 weights of its own."""
    return T.call_llvm_pure_intrin(
        T.llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpbusd.512"),
        sums,
        T.reinterpret(T.broadcast(T.reinterpret(bytes4, dtype="int32"), 16), dtype="uint8x64"),
        T.reinterpret(weights, dtype="int8x64"),
        dtype="int32x16",
    )


def _register(name: str, depth: int, dtype: str, product: Callable[..., Any], add_products: Callable[..., Any]) -> str:
    """Register an instruction and return its name.

    Args:
        name: to register it under.
        depth: activations at once, bytes.
        dtype: of the weights, (16, 4).
        product: gives the term that activations `a` and weights `b` add to sum i at k, int32.
        add_products: adds all terms to a vector of sums.
    """

    @T.prim_func(s_tir=True)
    def meaning(
        a: T.Buffer((depth,), "uint8", offset_factor=1),
        b: T.Buffer((16, 4), dtype, offset_factor=1),
        c: T.Buffer((16,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:16], a[0:depth], b[0:16, 0:4])
            T.writes(c[0:16])
            for i in T.serial(0, 16):
                for k in T.serial(0, 4):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        c[vi] = c[vi] + product(a, b, vi, vk)

    @T.prim_func(s_tir=True)
    def instruction(
        a: T.Buffer((depth,), "uint8", offset_factor=1),
        b: T.Buffer((16, 4), dtype, offset_factor=1),
        c: T.Buffer((16,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:16], a[0:depth], b[0:16, 0:4])
            T.writes(c[0:16])
            c[T.ramp(T.int32(0), 1, 16)] = add_products(c.vload([0], dtype="int32x16"), a, b)

    TensorIntrin.register(name, meaning, instruction, override=True)
    return name


@functools.cache
def multiply_bytes() -> str:
    """Register the product with weights of a byte each, (16, 4), and return its name."""

    def product(a: Any, b: Any, i: Any, k: Any) -> Any:
        return T.cast(a[k], "int32") * T.cast(b[i, k], "int32")

    def add_products(sums: Any, a: Any, b: Any) -> Any:
        return _products(sums, a.vload([0], "uint8x4"), b.vload([0, 0], dtype="int8x64"))

    return _register("hawq.vnni_bytes", 4, "int8", product, add_products)


@functools.cache
def multiply_nibbles() -> str:
    """Register 16 times the product of 8 bytes with two weights a byte, (16, 4), and return its name.

    Both weights end in an upper nibble, where a signed byte is 16 times its code: two masks and a shift for 128
    products.
    """

    def product(a: Any, b: Any, i: Any, k: Any) -> Any:
        return T.cast(a[k], "int32") * low(b[i, k]) + T.cast(a[k + 4], "int32") * high(b[i, k])

    def add_products(sums: Any, a: Any, b: Any) -> Any:
        pairs = T.reinterpret(b.vload([0, 0], dtype="uint8x64"), dtype="uint32x16")
        mask = T.broadcast(T.uint32(_HIGH_NIBBLES), 16)
        lows = T.bitwise_and(T.shift_left(pairs, T.broadcast(T.uint32(4), 16)), mask)
        return _products(
            _products(sums, a.vload([0], "uint8x4"), lows), a.vload([4], "uint8x4"), T.bitwise_and(pairs, mask)
        )

    return _register("hawq.vnni_nibbles", 8, "uint8", product, add_products)
