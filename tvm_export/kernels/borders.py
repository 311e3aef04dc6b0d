"""Pass over the rows of a kernel that lie above or below the map, where products are zero."""

from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.stmt import SBlock, SBlockRealize
from tvm.sym import Analyzer
from tvm.tirx import For, IfThenElse, SeqStmt

__all__ = ["annotate_rows", "inner_rows", "pass_over_rows"]

_ROWS = "hawq.rows"
"""Annotation of a sum over windows: height of the map, padding above it, stride and dilation of its rows."""

_TILE_ROW = "hawq.tile_row"
"""Annotation of the loop over rows of the kernel: what _ROWS says, and the rows of a tile."""


def inner_rows(height: int, top: int, stride: int, dilation: int) -> dict[str, list[int]]:
    """Return what says where the rows of a window lie: row r of window h is row h * stride + r * dilation - top.

    To be given only where the border adds nothing to a sum.
    """
    return {_ROWS: [height, top, stride, dilation]}


def annotate_rows(sch: Schedule, block: Any, loop: Any, tile_rows: int) -> None:
    """Let `pass_over_rows` find the loop over rows of the kernel, if the border adds nothing to the sums of a block."""
    if _ROWS in sch.get(block).annotations:
        sch.annotate(loop, _TILE_ROW, [*sch.get(block).annotations[_ROWS], tile_rows])
        sch.unannotate(block, _ROWS)


def pass_over_rows(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a scheduled function that asks for each row of the kernel whether a tile has it inside the map.

    TVM has no primitive for it: a condition in the definition would stand in front of every product.
    """
    return function.with_body(_changed(function.body))


def _changed(stmt: Any) -> Any:
    match stmt:
        case SBlockRealize():
            return SBlockRealize(stmt.iter_values, stmt.predicate, _changed(stmt.block))
        case SBlock():
            return SBlock(stmt.iter_vars, stmt.reads, stmt.writes, stmt.name_hint, _changed(stmt.body), stmt.init,
                          stmt.alloc_buffers, stmt.match_buffers, stmt.annotations)  # fmt: skip
        case SeqStmt():
            return SeqStmt([_changed(part) for part in stmt])
        case For() if _TILE_ROW in stmt.annotations:
            rows = [int(number) for number in stmt.annotations[_TILE_ROW]]
            body = IfThenElse(_meets(stmt, *rows), stmt.body, None)
            return For(stmt.loop_var, stmt.min, stmt.extent, stmt.kind, body)
        case For():
            return For(stmt.loop_var, stmt.min, stmt.extent, stmt.kind, _changed(stmt.body), stmt.thread_binding,
                       stmt.annotations)  # fmt: skip
    return stmt


def _meets(loop: For, height: int, top: int, stride: int, dilation: int, tile_rows: int) -> Any:
    """Return whether a row of the tile's windows lies inside the map."""
    first = _first_row(loop) * stride + loop.loop_var * dilation - top
    return tirx.all(first + (tile_rows - 1) * stride >= 0, first < height)


def _first_row(loop: For) -> Any:
    """Return the first row of the windows that a tile sums, in loops outside of the given one."""
    first, stmt = Analyzer(), loop.body
    while isinstance(stmt, For):
        first.bind(stmt.loop_var, stmt.min)
        stmt = stmt.body
    return first.simplify(stmt.iter_values[1])
