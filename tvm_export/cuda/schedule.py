"""Schedule op definitions for GPUs: one thread for each stored element of the output."""

import tvm
import tvm.s_tir as s_tir
from tvm import te

from tvm_export.definitions import Definition

__all__ = ["schedule"]

_THREADS = 128


def schedule(definition: Definition) -> tvm.tirx.PrimFunc:
    """Return the scheduled kernel of an op without tensor cores."""
    function = te.create_prim_func(definition.arguments).without_attr("global_symbol")
    sch = s_tir.Schedule(function)
    blocks = [sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))]
    n, h, w, c = sch.get_loops(sch.get_sblock("out"))
    if "sum" not in blocks:
        block, thread = sch.split(sch.fuse(n, h, w, c), [None, _THREADS])
        sch.bind(block, "blockIdx.x")
        sch.bind(thread, "threadIdx.x")
    else:
        # whole divisors: a ragged split would leave bindings that TVM cannot reduce over
        threads = next(d for d in range(_THREADS, 0, -1) if int(sch.get(c).extent) % d == 0)
        outer, thread = sch.split(c, [None, threads])
        sch.bind(sch.fuse(n, h, w, outer), "blockIdx.x")
        sch.bind(thread, "threadIdx.x")
        reduction = sch.get_sblock("sum")
        sch.compute_at(reduction, thread, preserve_unit_loops=True)
        sch.set_scope(reduction, 0, "local")
        axes = len(sch.get(reduction).iter_vars)
        reduced = [
            loop
            for loop, var in zip(sch.get_loops(reduction)[-axes:], sch.get(reduction).iter_vars, strict=True)
            if var.iter_type == tvm.tirx.IterVar.CommReduce
        ]
        sch.decompose_reduction(reduction, reduced[0])
    return sch.mod[sch.mod.get_global_vars()[0]].with_attr("tirx.is_scheduled", True)
