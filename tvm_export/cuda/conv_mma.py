"""Call the tensor-core convolution of conv_mma.cuh for a layer: its constants, its weights, its launch."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm.backend.cuda.op import cuda_func_call
from tvm.script import tirx as T

from hawq.integer import ops as o
from tvm_export.definitions import Site, dense_weight, offset_bias, per_channel
from tvm_export.storage import Storage, round_up

__all__ = ["TILE", "conv_mma", "pack_nibbles", "suits"]

TILE = 64
_THREADS = 128
_BLOCKS = 4
"""Blocks that a multiprocessor holds at least: 128 registers for each thread. Left to itself the assembler settles for
64 on some layers and architectures, and spills."""

_HEADER = (Path(__file__).parent / "conv_mma.cuh").read_text()


def suits(site: Site) -> bool:
    """Tell whether the tensor cores take the op: a dense convolution or linear layer over codes of at most 8 bits."""
    dense = isinstance(site.op, o.Linear) or (isinstance(site.op, o.Conv2d) and site.op.groups == 1)
    return dense and site.inputs[0].type.bits <= 8


def pack_nibbles(codes: np.ndarray) -> np.ndarray:
    """Return uint8, two signed or unsigned 4-bit codes a byte along the last axis, the first in the low nibble."""
    nibbles = codes.astype(np.uint8) & 15
    return nibbles[..., ::2] | nibbles[..., 1::2] << 4


@dataclass(frozen=True)
class MmaConv:
    """Everything conv_mma.cuh is told about a layer."""

    source: Storage
    out: Storage
    images: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    fill: int
    nibbles_w: bool
    accumulate: bool
    zero: int
    lo: int
    hi: int

    def constants(self) -> str:
        """Return the body of the struct P."""
        _, height, width = self.source.chw
        _, out_height, out_width = self.out.chw
        pads = self.source.type.zero_point + self.fill
        numbers = {
            "Height": height, "Width": width, "Channels": self.source.channels, "Images": self.images,
            "OutHeight": out_height, "OutWidth": out_width, "OutStored": self.out.channels,
            "KernelH": self.kernel[0], "KernelW": self.kernel[1], "StrideH": self.stride[0], "StrideW": self.stride[1],
            "Top": self.padding[0], "Left": self.padding[2],
            "DilationH": self.dilation[0], "DilationW": self.dilation[1], "Zero": self.zero,
        }  # fmt: skip
        flags = {
            "NibblesX": self.source.packed, "NibblesW": self.nibbles_w, "Signed": self.source.type.signed,
            "PackOut": self.out.packed, "Accumulate": self.accumulate,
        }  # fmt: skip
        word = (pads & 15) * 0x11111111 if self.source.packed else (pads & 255) * 0x01010101
        types = {"uint8": "unsigned char", "int8": "signed char", "uint16": "unsigned short", "int16": "short"}
        lines = [
            f"typedef {types.get(self.out.dtype, 'int')} Out;",
            *(f"static constexpr int k{name} = {value};" for name, value in numbers.items()),
            *(f"static constexpr bool k{name} = {str(value).lower()};" for name, value in flags.items()),
            f"static constexpr unsigned kFill = {word}u;",
            f"static constexpr long long kLo = {self.lo}LL, kHi = {self.hi}LL;",
        ]
        return "\n  ".join(lines)

    def source_code(self) -> tuple[str, str]:
        """Return the name and the text of the function that computes the layer."""
        body = self.constants()
        name = f"hawq_conv_{hashlib.sha256(body.encode()).hexdigest()[:12]}"
        text = (
            f"{_HEADER}\n#ifndef GUARD_{name}\n#define GUARD_{name}\nstruct P_{name} {{\n  {body}\n}};\n"
            f"__device__ __forceinline__ void {name}(const void* x, const void* w, const int* bias, "
            "const int* multiplier, const int* shift, void* y) {\n"
            f"  hawq::convolve<P_{name}>(x, w, bias, multiplier, shift, y);\n}}\n#endif\n"
        )
        return name, text


def conv_mma(site: Site) -> tuple[tvm.tirx.PrimFunc, tuple[np.ndarray, ...]]:
    """Return the kernel of a dense convolution or linear layer, and its constants.

    4-bit weights are packed two a byte. The zero point of the input leaves the sum through the bias.
    """
    op: Any = site.op
    (source,), weight = site.inputs, dense_weight(site)
    outputs, channels, kh, kw = weight.shape
    nibbles_w = bool(np.abs(weight).max(initial=0) <= 7)
    spread = np.zeros((round_up(site.out.channels, TILE), kh, kw, source.channels), np.int8)
    spread[:outputs, :, :, :channels] = weight.transpose(0, 2, 3, 1)
    packed = pack_nibbles(spread) if nibbles_w else spread.view(np.uint8)

    stored = site.out.channels
    bias = per_channel(offset_bias(site, source.type.zero_point), stored)
    multiplier, shift = (
        per_channel(site.constants.get(name, np.zeros(outputs, np.int32)), stored, fill)
        for name, fill in (("multiplier", 1), ("shift", 1))
    )
    layer = MmaConv(
        source=source,
        out=site.out,
        images=site.batch,
        kernel=(kh, kw),
        stride=getattr(op, "stride", (1, 1)),
        padding=getattr(op, "padding", (0, 0, 0, 0)),
        dilation=getattr(op, "dilation", (1, 1)),
        fill=getattr(op, "fill", 0),
        nibbles_w=nibbles_w,
        accumulate=op.accumulates,
        zero=op.out.zero_point,
        lo=op.lo,
        hi=op.hi,
    )
    name, code = layer.source_code()
    pixels = site.batch * site.out.chw[1] * site.out.chw[2]
    function = _launch(layer, name, code, packed.shape, -(-pixels // TILE), -(-stored // TILE))
    return function, (packed, bias, multiplier, shift)


def _launch(
    layer: MmaConv, name: str, code: str, weight_shape: tuple[int, ...], tiles_m: int, tiles_n: int
) -> tvm.tirx.PrimFunc:
    """Return the function that starts a grid of tiles."""
    x_shape, y_shape = layer.source.shape(layer.images), layer.out.shape(layer.images)
    x_dtype, y_dtype, stored = layer.source.dtype, layer.out.dtype, layer.out.channels

    def call(*buffers: Any) -> Any:
        return cuda_func_call(name, *buffers, source_code=code)

    @T.prim_func(s_tir=True, private=True)
    def kernel(
        x: T.Buffer(x_shape, x_dtype),
        w: T.Buffer(weight_shape, "uint8"),
        bias: T.Buffer((stored,), "int32"),
        multiplier: T.Buffer((stored,), "int32"),
        shift: T.Buffer((stored,), "int32"),
        y: T.Buffer(y_shape, y_dtype),
    ):
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        T.launch_thread("blockIdx.x", tiles_m)
        T.launch_thread("blockIdx.y", tiles_n)
        T.launch_thread("threadIdx.x", _THREADS)
        T.attr(0, "tirx.launch_bounds_min_blocks_per_sm", _BLOCKS)
        T.evaluate(call(x.data, w.data, bias.data, multiplier.data, shift.data, y.data))

    return kernel
