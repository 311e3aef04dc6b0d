"""Define Conv2d and Linear: as dot products wherever that is exact, code by code elsewhere."""

import numpy as np
import torch
from tvm import te, tirx

from hawq.integer import LayerBound, TensorType
from hawq.integer import ops as o
from hawq.integer.certificate import partial_sum_bound
from tvm_export.depthwise import depthwise, sums_rows
from tvm_export.expressions import Body, Geometry, Site, constant, definition, inside
from tvm_export.instructions import BLOCK
from tvm_export.kernels.borders import inner_rows
from tvm_export.nibbles import high, low, pack_nibbles
from tvm_export.plans import Plan, Product, choose
from tvm_export.storage import Expr, round_up
from tvm_export.sums import bytes_fit, code_offset, dense_weight, epilogue, offset_bias

__all__ = ["dense_product"]


@definition(o.Conv2d)
def _conv2d(op: o.Conv2d, site: Site) -> Body:
    return _convolution(site, Geometry(op.stride, op.padding, op.dilation, op.groups, op.fill))


@definition(o.Linear)
def _linear(op: o.Linear, site: Site) -> Body:
    return _convolution(site, Geometry())


def _convolution(site: Site, geometry: Geometry) -> Body:
    product = dense_product(site)
    if product is None:
        return depthwise(site, geometry) if sums_rows(site, geometry) else _grouped(site, geometry)
    return _dense(site, geometry, site.plan or choose(product, site.instruction))


def dense_product(site: Site) -> Product | None:
    """Return what there is to plan about an op; None if it is not computed as dot products over all channels."""
    if not isinstance(site.op, o.Conv2d | o.Linear) or getattr(site.op, "groups", 1) > 1:
        return None
    if not bytes_fit(site):
        return None
    instruction, weight = site.instruction, site.constants["weight"]
    return Product(
        *site.out.chw[1:],
        blocks=round_up(site.out.channels, BLOCK) // BLOCK,
        depth=weight[0].size,
        weights=weight.size,
        packable=instruction.unpacks and _steps(site) % 2 == 0 and _nibble_sum_fits(site),
    )


def _steps(site: Site) -> int:
    """Return how often the instruction is applied to all input channels of a pixel."""
    return -(-site.constants["weight"].shape[1] // site.instruction.depth)


def _nibble_sum_fits(site: Site) -> bool:
    """Tell whether weights fit 4 bits, and 16 times the sum of their products with bytes fits int32."""
    weight = torch.from_numpy(site.constants["weight"])
    if int(weight.min()) < -8 or int(weight.max()) > 7:
        return False
    none, anything = torch.zeros(len(weight), dtype=torch.int32), TensorType((1,), 8, signed=False)
    return LayerBound(site.op.name, *partial_sum_bound(weight.int() * 16, none, anything)).fits_int32


def _dense(site: Site, geometry: Geometry, plan: Plan) -> Body:
    """Multiply code + offset by blocked weights (O/16, KH, KW, C/depth, 16, depth): u8 x s8 or s16 x s8 -> s32.

    The offset and the zero point leave the sum through the bias. Packed weights hold the first half of 2 * depth
    channels in low nibbles, the others in high ones; their sum is 16 times what it should be.
    """
    instruction = site.instruction
    depth, operand = instruction.depth, instruction.operand
    (source,), weight = site.inputs, dense_weight(site)
    outputs, channels, kh, kw = weight.shape
    _, height, width = source.chw
    _, oh, ow = site.out.chw
    (top, bottom, left, right), (sh, sw), (dh, dw) = geometry.padding, geometry.stride, geometry.dilation
    steps, blocks = _steps(site), round_up(site.out.channels, BLOCK) // BLOCK
    offset = code_offset(site)
    zero = source.type.zero_point + offset
    tall, wide = round_up(oh, plan.tile.rows), round_up(ow, plan.tile.pixels)  # the last tiles may hang over

    x = source.placeholder(site.batch, "x")
    blocked = np.zeros((blocks * BLOCK, steps * depth, kh, kw), np.int8)
    blocked[:outputs, :channels] = weight
    blocked = blocked.reshape(blocks, BLOCK, steps, depth, kh, kw).transpose(0, 4, 5, 2, 1, 3)
    if plan.packed:
        blocked = np.moveaxis(pack_nibbles(np.moveaxis(blocked, 3, -1)), -1, 3)
    w, w_array = constant(blocked, "weight")

    def padded(n: Expr, h: Expr, v: Expr, c: Expr) -> Expr:
        exists = tirx.all(inside((height, width), h - top, v - left), c < source.channels)
        code = source.read(x, n, h - top, v - left, c) + offset
        return tirx.if_then_else(exists, code.astype(operand), tirx.const(zero + geometry.fill, operand))

    reach = (
        max(height + top + bottom, (tall - 1) * sh + (kh - 1) * dh + 1),
        max(width + left + right, (wide - 1) * sw + (kw - 1) * dw + 1),
    )
    as_stored = source.dtype == operand and offset == 0 and source.channels % depth == 0 and not any(geometry.padding)
    # what hangs over may read the last pixel again: that takes less than a copy, if it is not decided tap by tap
    as_stored = as_stored and (reach == (height, width) or kh * kw == 1)
    xp = x if as_stored else te.compute((site.batch, *reach, steps * depth), padded, name="pad")
    last_row, last_column = (extent - 1 for extent in ((height, width) if as_stored else reach))
    extents = {"r": kh, "q": kw, "d": w_array.shape[3], "e": depth}
    r, q, d, e = (te.reduce_axis((0, extent), name=name) for name, extent in extents.items())

    def product(n: Expr, h: Expr, v: Expr, ob: Expr, oi: Expr) -> Expr:
        def number(c: Expr) -> Expr:
            row, column = tirx.min(h * sh + r * dh, last_row), tirx.min(v * sw + q * dw, last_column)
            return xp[n, row, column, c].astype("int32")

        weight = w[ob, r, q, d, oi, e]
        if not plan.packed:
            return number(d * depth + e) * weight.astype("int32")
        return number(d * (2 * depth) + e) * low(weight) + number(d * (2 * depth) + e + depth) * high(weight)

    acc = te.compute(
        (site.batch, tall, wide, blocks, BLOCK),
        lambda *place: te.sum(product(*place), axis=[r, q, d, e]),
        name="conv",
        attrs=inner_rows(height, top, sh, dh) if zero + geometry.fill == 0 and top + bottom else None,
    )

    def total(n: Expr, h: Expr, v: Expr, c: Expr) -> Expr:
        found = acc[n, h, v, c // BLOCK, c % BLOCK]
        return tirx.shift_right(found, 4) if plan.packed else found

    constants, code = epilogue(site, offset_bias(site, zero), total)
    return Body((x,), ((w, w_array), *constants), code)


def _grouped(site: Site, geometry: Geometry) -> Body:
    """Convolve group by group, depthwise included, with weights (KH, KW, I/groups, O); input codes of any width."""
    (source,), weight = site.inputs, dense_weight(site)
    outputs, per_group, kh, kw = weight.shape
    _, height, width = source.chw
    _, oh, ow = site.out.chw
    x = source.placeholder(site.batch, "x")
    spread = np.zeros((kh, kw, per_group, site.out.channels), np.int8)
    spread[..., :outputs] = weight.transpose(2, 3, 1, 0)
    w, w_array = constant(spread, "weight")
    zero = source.type.zero_point

    def channel(c: Expr, i: Expr) -> Expr:
        if per_group == 1 and outputs == geometry.groups and site.out.channels <= source.channels:
            return c
        return tirx.min(c // (outputs // geometry.groups) * per_group + i, source.channels - 1)

    def product(n: Expr, h: Expr, v: Expr, c: Expr, r: Expr, q: Expr, i: Expr) -> Expr:
        y, z = geometry.position(h, v, r, q)
        code = source.read(x, n, y, z, channel(c, i)) - zero
        masked = tirx.if_then_else(inside((height, width), y, z), code, tirx.const(geometry.fill, "int32"))
        return (masked if any(geometry.padding) else code) * w[r, q, i, c].astype("int32")

    r, q, i = (te.reduce_axis((0, k), name=name) for k, name in ((kh, "r"), (kw, "q"), (per_group, "i")))
    acc = te.compute(
        (site.batch, oh, ow, site.out.channels),
        lambda n, h, v, c: te.sum(product(n, h, v, c, r, q, i), axis=[r, q, i]),
        name="sum",
    )
    constants, code = epilogue(site, site.constants["bias"], lambda n, h, v, c: acc[n, h, v, c])
    return Body((x,), ((w, w_array), *constants), code)
