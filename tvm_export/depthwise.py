"""Define depthwise convolutions whose windows an instruction sums four rows at a time.

Of every pixel and channel the codes of up to four rows are brought together in the bytes of one number, so that a
window of three rows by three takes three instructions for 16 channels, and neighbouring windows share the numbers.
"""

import functools
from collections.abc import Sequence

import numpy as np
from tvm import te, tirx

from tvm_export.expressions import Body, Geometry, Site, constant
from tvm_export.instructions import BLOCK
from tvm_export.lane_products import add_products, multiplies_lanes
from tvm_export.storage import Expr, round_up
from tvm_export.sums import bytes_fit, code_offset, dense_weight, epilogue, offset_bias

__all__ = ["depthwise", "sums_rows"]

_ROWS = 4
"""Bytes of a number."""

_ALL = 0x01010101
"""Times a byte: a number of four of it."""


def sums_rows(site: Site, geometry: Geometry) -> bool:
    """Tell whether an op is a depthwise convolution that can be computed so."""
    outputs, per_group, *_ = dense_weight(site).shape
    one_each = per_group == 1 and outputs == geometry.groups and site.out.channels == site.inputs[0].channels
    return one_each and site.out.channels % BLOCK == 0 and multiplies_lanes(site.instruction) and bytes_fit(site)


def depthwise(site: Site, geometry: Geometry) -> Body:
    """Multiply columns of codes by columns of weights (KW, KH/4, O), four s8 in an int32.

    Signed codes are offset by 128, in all bytes of a number at once; offset and zero point leave the sum through the
    bias.
    """
    (source,), weight = site.inputs, dense_weight(site)
    outputs, _, kh, kw = weight.shape
    _, height, width = source.chw
    _, oh, ow = site.out.chw
    (top, bottom, left, right), (sh, sw), (dh, dw) = geometry.padding, geometry.stride, geometry.dilation
    groups, blocks = round_up(kh, _ROWS) // _ROWS, site.out.channels // BLOCK
    offset = code_offset(site)
    border = tirx.const((source.type.zero_point + geometry.fill) & 255, "uint32")

    x = source.placeholder(site.batch, "x")
    filled = np.zeros((site.out.channels, groups * _ROWS, kw), np.int8)
    filled[:outputs, :kh] = weight[:, 0]
    taps = np.ascontiguousarray(filled.reshape(-1, groups, _ROWS, kw).transpose(3, 1, 0, 2))
    w, w_array = constant(taps.view(np.int32)[..., 0], "weight")

    def columns(first: int) -> te.Tensor:
        rows = range(first, min(first + _ROWS, kh))

        def together(codes: Sequence[Expr]) -> Expr:
            shifted = (tirx.shift_left(code, tirx.const(8 * e, "uint32")) for e, code in enumerate(codes))
            return tirx.bitwise_xor(functools.reduce(tirx.bitwise_or, shifted), tirx.const(offset * _ALL, "uint32"))

        def number(n: Expr, h: Expr, ob: Expr, v: Expr, oi: Expr) -> Expr:
            def code(r: int) -> Expr:
                row = h * sh + r * dh - top
                stored = x[n, row, v - left, ob * BLOCK + oi].astype("uint8").astype("uint32")
                return tirx.if_then_else(tirx.all(row >= 0, row < height), stored, border) if top or bottom else stored

            found = together([code(r) for r in rows])
            exists = tirx.all(v - left >= 0, v - left < width)
            found = tirx.if_then_else(exists, found, together([border] * len(rows))) if left or right else found
            return tirx.reinterpret("int32", found)

        return te.compute((site.batch, oh, blocks, (ow - 1) * sw + (kw - 1) * dw + 1, BLOCK), number, name="columns")

    gathered = [columns(first) for first in range(0, kh, _ROWS)]

    def windows(n: Expr, h: Expr, v: Expr, c: Expr) -> Expr:
        total = tirx.const(0, "int32")
        for q in range(kw):
            for g, numbers in enumerate(gathered):
                number = numbers[n, h, c // BLOCK, v * sw + q * dw, c % BLOCK]
                total = add_products(site.instruction, total, number, w[q, g, c])
        return total

    acc = te.compute((site.batch, oh, ow, site.out.channels), windows, name="windows")
    zero = source.type.zero_point + offset
    constants, code = epilogue(site, offset_bias(site, zero), lambda n, h, v, c: acc[n, h, v, c])
    return Body((x,), ((w, w_array), *constants), code)
