"""Start the tensor-core convolution: a grid of tiles, and with slices a second kernel that adds up their sums."""

from dataclasses import dataclass

import tvm
from tvm.script import tirx as T

from tvm_export.cuda.source import SHARED_BYTES, DeviceFunction
from tvm_export.cuda.tiles import Gemm, Plan
from tvm_export.definitions import Site

__all__ = ["FINISH_THREADS", "Grid", "launch"]

FINISH_THREADS = 128
"""Of a block that adds up slices."""

_HEADERS = ("instructions.cuh", "epilogue.cuh", "conv_mma.cuh")
_CHANNELS = "const int* bias, const int* multiplier, const int* shift, void* y"


@dataclass(frozen=True)
class Grid:
    """What is started.

    Attributes:
        plan: how the product is cut up.
        gemm: the product.
        shared_bytes: dynamic shared memory of a block.
        blocks: that a multiprocessor is to hold at least.
    """

    plan: Plan
    gemm: Gemm
    shared_bytes: int
    blocks: int


def launch(
    constants: str, site: Site, grid: Grid, weight_shape: tuple[int, ...], bias_shape: tuple[int, ...]
) -> tvm.tirx.PrimFunc:
    """Return the function of a layer.

    Args:
        constants: body of the struct P of conv_mma.cuh.
        site: the layer.
        grid: what to start.
        weight_shape: of the packed weights.
        bias_shape: of bias, multipliers and shifts.
    """
    plan, source = grid.plan, site.inputs[0]
    x_shape, x_dtype = source.shape(site.batch), source.dtype
    y_shape, y_dtype = site.out.shape(site.batch), site.out.dtype
    tiles_m, tiles_n = plan.tiles(grid.gemm)
    tiles, threads, shared_bytes, blocks = tiles_m * tiles_n, plan.tile.threads, grid.shared_bytes, grid.blocks
    convolve = DeviceFunction(
        _HEADERS, constants, f"void* shared, const void* x, const void* w, {_CHANNELS}",
        "hawq::convolve<P>(x, w, {bias, multiplier, shift}, y, shared);",
    )  # fmt: skip

    if plan.slices == 1:

        @T.prim_func(s_tir=True, private=True)
        def whole(
            x: T.Buffer(x_shape, x_dtype),
            w: T.Buffer(weight_shape, "uint8"),
            bias: T.Buffer(bias_shape, "int32"),
            multiplier: T.Buffer(bias_shape, "int32"),
            shift: T.Buffer(bias_shape, "int32"),
            y: T.Buffer(y_shape, y_dtype),
        ):
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, SHARED_BYTES: shared_bytes})
            with T.launch_thread("blockIdx.x", tiles):
                T.launch_thread("threadIdx.x", threads)
                T.attr(0, "tirx.launch_bounds_min_blocks_per_sm", blocks)
                shared = T.alloc_buffer((shared_bytes,), "uint8", scope="shared.dyn")
                T.evaluate(convolve(shared.data, x.data, w.data, bias.data, multiplier.data, shift.data, y.data))

        return whole

    finish = DeviceFunction(
        _HEADERS, constants, f"const int* sums, {_CHANNELS}",
        "hawq::finish_slices<P>(sums, {bias, multiplier, shift}, y);",
    )  # fmt: skip
    slices, sum_count = plan.slices, plan.slices * grid.gemm.pixels * site.out.channels
    finish_blocks = -(-sum_count // slices // 4 // FINISH_THREADS)

    @T.prim_func(s_tir=True, private=True)
    def sliced(
        x: T.Buffer(x_shape, x_dtype),
        w: T.Buffer(weight_shape, "uint8"),
        bias: T.Buffer(bias_shape, "int32"),
        multiplier: T.Buffer(bias_shape, "int32"),
        shift: T.Buffer(bias_shape, "int32"),
        y: T.Buffer(y_shape, y_dtype),
    ):
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, SHARED_BYTES: shared_bytes})
        sums = T.alloc_buffer((sum_count,), "int32", scope="global")
        with T.launch_thread("blockIdx.x", tiles):
            T.launch_thread("blockIdx.y", slices)
            T.launch_thread("threadIdx.x", threads)
            T.attr(0, "tirx.launch_bounds_min_blocks_per_sm", blocks)
            shared = T.alloc_buffer((shared_bytes,), "uint8", scope="shared.dyn")
            T.evaluate(convolve(shared.data, x.data, w.data, bias.data, multiplier.data, shift.data, sums.data))
        with T.launch_thread("blockIdx.x", finish_blocks):
            T.launch_thread("threadIdx.x", FINISH_THREADS)
            T.evaluate(finish(sums.data, bias.data, multiplier.data, shift.data, y.data))

    return sliced
