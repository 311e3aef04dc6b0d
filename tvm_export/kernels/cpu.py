"""Schedule op definitions for the CPU: AVX512-VNNI for dense convolutions, vectors over channels for the rest."""

import functools
from typing import Any

import tvm
import tvm.s_tir as s_tir
from tvm import te
from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from tvm_export.convolutions import BLOCK, register_tile
from tvm_export.expressions import Definition

__all__ = ["schedule"]

_VNNI = "hawq.vnni_u8s8s32"
"""Multiply 4 unsigned by 16x4 signed bytes into 16 int32 sums; wraps, never saturates."""


@functools.cache
def _register_vnni() -> str:
    """Register the instruction with TVM and return its name.

    TVM ships one under this shape that LLVM 22 rejects for its operand types. Its module is not imported either: it
    would parse 250 functions, each after a look at the whole call stack, which takes most of a minute. Parsing happens
    on first use and not on import for the same reason: frames of the import system are what makes that look slow.
    """

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
            c[T.ramp(T.int32(0), 1, 16)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpbusd.512"),
                c.vload([0], dtype="int32x16"),
                T.reinterpret(T.broadcast(T.reinterpret(a.vload([0], "uint8x4"), dtype="int32"), 16), dtype="uint8x64"),
                b.vload([0, 0], dtype="int8x64"),
                dtype="int32x16",
            )

    TensorIntrin.register(_VNNI, meaning, instruction, override=True)
    return _VNNI


def schedule(definition: Definition, vnni: bool) -> tvm.tirx.PrimFunc:
    """Return the scheduled kernel.

    Args:
        definition: of the op.
        vnni: whether the CPU has AVX512-VNNI.
    """
    function = te.create_prim_func(definition.arguments).without_attr("global_symbol")
    sch = s_tir.Schedule(function)
    blocks = {sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))}
    if "conv" in blocks:
        _dense(sch, vnni)
        if "pad" in blocks:
            _pad(sch)
    elif "sum" in blocks:
        _reduce(sch)
    else:
        _pointwise(sch)
    return sch.mod[sch.mod.get_global_vars()[0]]


def _follow(sch: s_tir.Schedule, loop: Any) -> None:
    """Write what followers make of a block of channels while it is in registers."""
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        if sch.get(block).name_hint.startswith("out") and sch.get(block).name_hint != "out":
            sch.reverse_compute_at(block, loop)
            sch.vectorize(sch.get_loops(block)[-1])


def _extent(sch: s_tir.Schedule, loop: Any) -> int:
    return int(sch.get(loop).extent)


def _dense(sch: s_tir.Schedule, vnni: bool) -> None:
    """Keep a tile of pixels x 16-channel blocks in registers, requantize it where it stands."""
    conv, out = sch.get_sblock("conv"), sch.get_sblock("out")
    n, h, v, c = sch.get_loops(out)
    pixels, blocks = register_tile(_extent(sch, v), _extent(sch, c) // BLOCK)
    wo, wi = sch.split(v, [None, pixels])
    obo, obi, oi = sch.split(c, [None, blocks, BLOCK])
    sch.reorder(n, h, obo, wo, wi, obi, oi)
    _follow(sch, obi)
    sch.vectorize(oi)
    sch.unroll(obi)
    sch.unroll(wi)
    sch.parallel(sch.fuse(n, h, obo))
    sch.compute_at(conv, wo, preserve_unit_loops=True)
    *_, ch, cw, cob, coi, r, q, d, e = sch.get_loops(conv)
    sch.reorder(ch, r, q, d, cob, cw, coi, e)
    sch.unroll(cob)
    sch.unroll(cw)
    if not vnni:
        sch.vectorize(coi)
    init = sch.decompose_reduction(conv, r)
    *_, iw, iob, ioi = sch.get_loops(init)
    sch.vectorize(ioi)
    sch.unroll(iw)
    sch.unroll(iob)
    if vnni:
        sch.tensorize(coi, _register_vnni())


def _pad(sch: s_tir.Schedule) -> None:
    """Copy the input with its border, offset to unsigned bytes."""
    pn, ph, _, pc = sch.get_loops(sch.get_sblock("pad"))
    sch.parallel(sch.fuse(pn, ph))
    if _extent(sch, pc) % BLOCK == 0:
        sch.vectorize(sch.split(pc, [None, BLOCK])[1])


def _reduce(sch: s_tir.Schedule) -> None:
    """Sum or maximise a window over vectors of channels."""
    reduction, out = sch.get_sblock("sum"), sch.get_sblock("out")
    n, h, _, c = sch.get_loops(out)
    co, ci = sch.split(c, [None, BLOCK])
    _follow(sch, co)
    sch.vectorize(ci)
    sch.parallel(sch.fuse(n, h))
    sch.compute_at(reduction, co, preserve_unit_loops=True)
    *_, lanes = sch.get_loops(reduction)[: 4 - len(sch.get(reduction).iter_vars)]
    reduced = sch.get_loops(reduction)[4 - len(sch.get(reduction).iter_vars) :]
    sch.reorder(*reduced, lanes)
    sch.vectorize(lanes)
    init = sch.decompose_reduction(reduction, reduced[0])
    sch.vectorize(sch.get_loops(init)[-1])


def _pointwise(sch: s_tir.Schedule) -> None:
    n, h, _, c = sch.get_loops(sch.get_sblock("out"))
    sch.parallel(sch.fuse(n, h))
    if _extent(sch, c) % BLOCK == 0:
        co, ci = sch.split(c, [None, BLOCK])
        _follow(sch, co)
        sch.vectorize(ci)
