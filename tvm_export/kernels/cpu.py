"""Schedule op definitions for the CPU: dot products for dense convolutions, vectors over channels for the rest."""

from typing import Any

import tvm
import tvm.s_tir as s_tir
from tvm import te

from tvm_export.expressions import Definition
from tvm_export.instructions import BLOCK, Instruction
from tvm_export.kernels.borders import annotate_rows, pass_over_rows
from tvm_export.kernels.dot_products import multiply_bytes, multiply_nibbles
from tvm_export.plans import Order, Plan

__all__ = ["schedule"]


def schedule(definition: Definition, instruction: Instruction, plan: Plan | None) -> tvm.tirx.PrimFunc:
    """Return the scheduled kernel.

    Args:
        definition: of the op.
        instruction: that dense convolutions were defined for.
        plan: of a dense convolution, that its definition follows.
    """
    function = te.create_prim_func(definition.arguments).without_attr("global_symbol")
    sch = s_tir.Schedule(function)
    blocks = {sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))}
    if plan is not None:
        _dense(sch, instruction, plan)
        if "pad" in blocks:
            _pad(sch)
    elif "windows" in blocks:
        _windows(sch)
    elif "sum" in blocks:
        _reduce(sch)
    else:
        _pointwise(sch, by_block=len(definition.activations) > 1 and not definition.constants)
    scheduled = sch.mod[sch.mod.get_global_vars()[0]]
    return scheduled if plan is None else pass_over_rows(scheduled)


def _follow(sch: s_tir.Schedule, loop: Any) -> None:
    """Write what followers make of a block of channels while it is in registers."""
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        if sch.get(block).name_hint.startswith("out") and sch.get(block).name_hint != "out":
            sch.reverse_compute_at(block, loop)
            sch.vectorize(sch.get_loops(block)[-1])


def _cut_at_borders(sch: s_tir.Schedule, loop: Any) -> None:
    """Let TVM make three loops of one over columns, so that those inside the map are not asked where they lie."""
    sch.annotate(loop, "pragma_loop_partition_hint", 1)


def _extent(sch: s_tir.Schedule, loop: Any) -> int:
    return int(sch.get(loop).extent)


def _dense(sch: s_tir.Schedule, instruction: Instruction, plan: Plan) -> None:
    """Keep a tile of rows x pixels x 16-channel blocks in registers, requantize it where it stands."""
    conv, out = sch.get_sblock("conv"), sch.get_sblock("out")
    n, h, v, c = sch.get_loops(out)
    ho, hi = sch.split(h, [None, plan.tile.rows])
    wo, wi = sch.split(v, [None, plan.tile.pixels])
    obo, obi, oi = sch.split(c, [None, plan.tile.blocks, BLOCK])
    outer = (n, ho, obo) if plan.order is Order.ROWS else (obo, n, ho)
    sch.reorder(*outer, wo, hi, wi, obi, oi)
    _follow(sch, obi)
    sch.vectorize(oi)
    sch.unroll(obi)
    sch.unroll(wi)
    sch.unroll(hi)
    sch.parallel(sch.fuse(*outer))
    sch.compute_at(conv, wo, preserve_unit_loops=True)
    *_, ch, cw, cob, coi, r, q, d, e = sch.get_loops(conv)
    sch.reorder(r, q, d, cob, ch, cw, coi, e)
    annotate_rows(sch, conv, r, plan.tile.rows)
    sch.unroll(cob)
    sch.unroll(ch)
    sch.unroll(cw)
    if not instruction.intrinsic:
        sch.vectorize(coi)
    init = sch.decompose_reduction(conv, r)
    *_, ih, iw, iob, ioi = sch.get_loops(init)
    sch.vectorize(ioi)
    sch.unroll(ih)
    sch.unroll(iw)
    sch.unroll(iob)
    if instruction.intrinsic:
        sch.tensorize(coi, (multiply_nibbles if plan.packed else multiply_bytes)(instruction))


def _pad(sch: s_tir.Schedule) -> None:
    """Copy the input with its border, as numbers that the instruction multiplies."""
    pn, ph, pv, pc = sch.get_loops(sch.get_sblock("pad"))
    _cut_at_borders(sch, pv)
    sch.parallel(sch.fuse(pn, ph))
    if _extent(sch, pc) % BLOCK == 0:
        sch.vectorize(sch.split(pc, [None, BLOCK])[1])


def _windows(sch: s_tir.Schedule) -> None:
    """Bring together the columns of a row of windows; sum and requantize block by block, where weights stay."""
    windows, out = sch.get_sblock("windows"), sch.get_sblock("out")
    n, h, v, c = sch.get_loops(out)
    co, ci = sch.split(c, [None, BLOCK])
    sch.reorder(n, h, co, v, ci)
    _follow(sch, v)
    sch.vectorize(ci)
    row = sch.fuse(n, h)
    sch.parallel(row)
    sch.compute_at(windows, v, preserve_unit_loops=True)
    sch.vectorize(sch.get_loops(windows)[-1])
    for block in sch.get_producers(windows):
        sch.compute_at(block, row, preserve_unit_loops=True)
        *_, column, lanes = sch.get_loops(block)
        _cut_at_borders(sch, column)
        sch.vectorize(lanes)


def _reduce(sch: s_tir.Schedule) -> None:
    """Sum or maximise a window over vectors of channels."""
    reduction, out = sch.get_sblock("sum"), sch.get_sblock("out")
    n, h, v, c = sch.get_loops(out)
    co, ci = sch.split(c, [None, BLOCK])
    _follow(sch, co)
    _cut_at_borders(sch, v)
    sch.vectorize(ci)
    sch.parallel(sch.fuse(n, h))
    sch.compute_at(reduction, co, preserve_unit_loops=True)
    *_, lanes = sch.get_loops(reduction)[: 4 - len(sch.get(reduction).iter_vars)]
    reduced = sch.get_loops(reduction)[4 - len(sch.get(reduction).iter_vars) :]
    sch.reorder(*reduced, lanes)
    sch.vectorize(lanes)
    init = sch.decompose_reduction(reduction, reduced[0])
    sch.vectorize(sch.get_loops(init)[-1])


def _pointwise(sch: s_tir.Schedule, *, by_block: bool) -> None:
    """Compute vectors of channels; block after block of a row where blocks are copied from several tensors."""
    n, h, v, c = sch.get_loops(sch.get_sblock("out"))
    sch.parallel(sch.fuse(n, h))
    if _extent(sch, c) % BLOCK == 0:
        co, ci = sch.split(c, [None, BLOCK])
        if by_block:
            sch.reorder(co, v)
            sch.unroll(co)  # so that the compiler sees which tensor a block comes from
        _follow(sch, co)
        sch.vectorize(ci)
