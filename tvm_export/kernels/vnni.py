"""Describe AVX512-VNNI to TVM: 4 unsigned by 16x4 signed bytes into 16 int32 sums, which wrap and never saturate.

TVM ships such an instruction that LLVM 22 rejects for its operand types. Its module is not imported either: it would
parse 250 functions, each after a look at the whole call stack, which takes most of a minute. Parsing happens on first
use and not on import for the same reason: frames of the import system are what makes that look slow.
"""

import functools
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


@functools.cache
def multiply_bytes() -> str:
    """Register the product with weights of a byte each, (16, 4), and return its name."""

    @T.prim_func(s_tir=True)
    def meaning(
        a: T.Buffer((4,), "uint8", offset_factor=1),
        b: T.Buffer((16, 4), "int8", offset_factor=1),
        c: T.Buffer((16,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:16], a[0:4], b[0:16, 0:4])
            T.writes(c[0:16])
            for i in T.serial(0, 16):
                for k in T.serial(0, 4):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        c[vi] = c[vi] + T.cast(a[vk], "int32") * T.cast(b[vi, vk], "int32")

    @T.prim_func(s_tir=True)
    def instruction(
        a: T.Buffer((4,), "uint8", offset_factor=1),
        b: T.Buffer((16, 4), "int8", offset_factor=1),
        c: T.Buffer((16,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:16], a[0:4], b[0:16, 0:4])
            T.writes(c[0:16])
            c[T.ramp(T.int32(0), 1, 16)] = _products(
                c.vload([0], dtype="int32x16"), a.vload([0], "uint8x4"), b.vload([0, 0], dtype="int8x64")
            )

    name = "hawq.vnni_bytes"
    TensorIntrin.register(name, meaning, instruction, override=True)
    return name


@functools.cache
def multiply_nibbles() -> str:
    """Register 16 times the product of 8 bytes with two weights a byte, (16, 4), and return its name.

    Both weights end in an upper nibble, where a signed byte is 16 times its code: two masks and a shift for 128
    products.
    """

    @T.prim_func(s_tir=True)
    def meaning(
        a: T.Buffer((8,), "uint8", offset_factor=1),
        b: T.Buffer((16, 4), "uint8", offset_factor=1),
        c: T.Buffer((16,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:16], a[0:8], b[0:16, 0:4])
            T.writes(c[0:16])
            for i in T.serial(0, 16):
                for k in T.serial(0, 4):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        c[vi] = c[vi] + (
                            T.cast(a[vk], "int32") * low(b[vi, vk]) + T.cast(a[vk + 4], "int32") * high(b[vi, vk])
                        )

    @T.prim_func(s_tir=True)
    def instruction(
        a: T.Buffer((8,), "uint8", offset_factor=1),
        b: T.Buffer((16, 4), "uint8", offset_factor=1),
        c: T.Buffer((16,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:16], a[0:8], b[0:16, 0:4])
            T.writes(c[0:16])
            c[T.ramp(T.int32(0), 1, 16)] = _products(
                _products(
                    c.vload([0], dtype="int32x16"),
                    a.vload([0], "uint8x4"),
                    T.bitwise_and(
                        T.shift_left(
                            T.reinterpret(b.vload([0, 0], dtype="uint8x64"), dtype="uint32x16"),
                            T.broadcast(T.uint32(4), 16),
                        ),
                        T.broadcast(T.uint32(_HIGH_NIBBLES), 16),
                    ),
                ),
                a.vload([4], "uint8x4"),
                T.bitwise_and(
                    T.reinterpret(b.vload([0, 0], dtype="uint8x64"), dtype="uint32x16"),
                    T.broadcast(T.uint32(_HIGH_NIBBLES), 16),
                ),
            )

    name = "hawq.vnni_nibbles"
    TensorIntrin.register(name, meaning, instruction, override=True)
    return name
