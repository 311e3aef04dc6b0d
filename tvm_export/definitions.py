"""Define every integer op once, as tensor expressions over codes; backends only choose storage and schedules."""

import itertools
from collections.abc import Sequence

import numpy as np
from tvm import te, tirx

from hawq.integer import ops as o
from tvm_export import convolutions  # noqa: F401 - registers its definitions
from tvm_export.expressions import (
    DEFINITIONS,
    Body,
    Code,
    Constants,
    Definition,
    Geometry,
    Site,
    byte_table,
    constant,
    definition,
    distance,
    inside,
    pointwise,
    pointwise_body,
    requantized,
    rounding_shift,
    source_channel,
)
from tvm_export.storage import Expr
from tvm_export.sums import dense_weight, offset_bias, per_channel

__all__ = ["Definition", "Site", "define", "dense_weight", "offset_bias", "per_channel"]


def define(site: Site) -> Definition:
    """Return the kernel of an op and its followers."""
    activations: list[te.Tensor] = []
    constants: list[tuple[te.Tensor, np.ndarray]] = []
    outs: list[te.Tensor] = []
    made: dict[str, Code] = {}
    for member in (site, *site.followers):
        body = pointwise_body(member, made) if made else DEFINITIONS[type(member.op)](member.op, member)
        activations += body.activations
        constants += body.constants
        if member.kept:
            outs.append(member.out.write(member.batch, body.code, f"out{len(outs) or ''}"))
        made[member.op.name] = _stored(member, outs[-1]) if member.kept else _passing(body.code)
    return Definition(tuple(activations), tuple(constants), tuple(outs))


def _stored(site: Site, out: te.Tensor) -> Code:
    return lambda n, h, w, c: site.out.read(out, n, h, w, c)


def _passing(code: Code) -> Code:
    return lambda n, h, w, c: code(n, h, w, c).astype("int32")


@definition(o.QuantizeInput)
def _quantize_input(op: o.QuantizeInput, site: Site) -> Body:
    channels, height, width = site.out.chw
    image = te.placeholder((site.batch, channels, height, width), "float32", name="image")
    zero, scale = op.out.zero_point, tirx.const(op.out.scale, "float32")

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        steps = te.nearbyint(image[n, tirx.min(c, channels - 1), h, w] / scale)  # IEEE division, ties to even
        limited = te.max(te.min(steps, tirx.const(op.hi - zero, "float32")), tirx.const(op.lo - zero, "float32"))
        return limited.astype("int32") + zero

    return Body((image,), (), code)


@definition(o.PixelInput)
def _pixel_input(op: o.PixelInput, site: Site) -> Body:
    channels, height, width = site.out.chw
    image = te.placeholder((site.batch, channels, height, width), "uint8", name="image")
    constants = [constant(site.constants[name], name) for name in ("multiplier", "offset", "shift")]
    m, b, s = (tensor for tensor, _ in constants)

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        k = tirx.min(c, channels - 1)
        value = rounding_shift(image[n, k, h, w].astype("int64") * m[k] + b[k], s[0])  # the offset holds the zero point
        return tirx.max(tirx.min(value, tirx.const(op.hi, "int64")), tirx.const(op.lo, "int64"))

    return Body((image,), tuple(constants), code)


@pointwise(o.Requantize)
def _requantize(op: o.Requantize, site: Site, values: Sequence[Code]) -> tuple[Constants, Code]:
    constants = [constant(site.constants[name], name) for name in ("multiplier", "shift")]
    m, s = (tensor for tensor, _ in constants)

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        value, bits = distance(values[0](n, h, w, c), site.inputs[0].type)
        return requantized(op, [(value, m[0])], s[0], site.constants["shift"], bits)

    return tuple(constants), code


@pointwise(o.Limit)
def _limit(op: o.Limit, site: Site, values: Sequence[Code]) -> tuple[Constants, Code]:
    limit, array = constant(per_channel(site.constants["limit"], site.out.channels), "limit")
    return ((limit, array),), lambda n, h, w, c: tirx.min(values[0](n, h, w, c), limit[c])


@definition(o.Threshold)
def _threshold(op: o.Threshold, site: Site) -> Body:
    """Add up the steps between levels over the thresholds reached: level_0 + sum_j (x >= threshold_cj) step_j."""
    (source,) = site.inputs
    x = source.placeholder(site.batch, "x")
    rows, level = site.constants["threshold"], site.constants["level"]
    shared = len(rows) == 1
    spread = rows.T if shared else np.pad(rows.T, ((0, 0), (0, site.out.channels - len(rows))))
    constants = [constant(spread, "threshold"), constant(np.diff(level), "step")]
    threshold, step = (tensor for tensor, _ in constants)
    _, height, width = site.out.chw
    j = te.reduce_axis((0, len(level) - 1), name="j")

    def climbed(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        code = source.read(x, n, h, w, source_channel(c, site, source))
        reached = code >= threshold[j, 0 if shared else c]
        return te.sum(tirx.Select(reached, step[j], tirx.const(0, "int32")), axis=[j])

    total = te.compute((site.batch, height, width, site.out.channels), climbed, name="sum")
    return Body((x,), tuple(constants), lambda n, h, w, c: total[n, h, w, c] + int(level[0]))


@pointwise(o.Add)
def _add(op: o.Add, site: Site, values: Sequence[Code]) -> tuple[Constants, Code]:
    constants = [constant(site.constants[name], name) for name in ("multiplier", "shift")]
    m, s = (tensor for tensor, _ in constants)

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        terms = [distance(value(n, h, w, c), x.type) for value, x in zip(values, site.inputs, strict=True)]
        products = [(value, m[i]) for i, (value, _) in enumerate(terms)]
        return requantized(op, products, s[0], site.constants["shift"], max(bits for _, bits in terms))

    return tuple(constants), code


@pointwise(o.Mul)
def _mul(op: o.Mul, site: Site, values: Sequence[Code]) -> tuple[Constants, Code]:
    constants = [constant(site.constants[name], name) for name in ("multiplier", "shift")]
    m, s = (tensor for tensor, _ in constants)
    per_channel = site.inputs[1].chw[1:] == (1, 1)

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        first, bits = distance(values[0](n, h, w, c), site.inputs[0].type)
        pixel = (0, 0) if per_channel else (h, w)
        second, more = distance(values[1](n, *pixel, c), site.inputs[1].type)
        return requantized(op, [(first * second, m[0])], s[0], site.constants["shift"], bits + more)

    return tuple(constants), code


@pointwise(o.Table)
def _table(op: o.Table, site: Site, values: Sequence[Code]) -> tuple[Constants, Code]:
    constants = [constant(byte_table(site), "table")]
    ((table, _),) = constants
    return tuple(constants), lambda n, h, w, c: table[tirx.bitwise_and(values[0](n, h, w, c), 255)]


@definition(o.Concat)
def _concat(op: o.Concat, site: Site) -> Body:
    inputs = [source.placeholder(site.batch, f"x{i}") for i, source in enumerate(site.inputs)]

    *starts, _ = itertools.accumulate((source.chw[0] for source in site.inputs), initial=0)
    ends = [*starts[1:], site.out.channels]

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        value = None
        for x, source, start, end in zip(inputs, site.inputs, starts, ends, strict=True):
            inner = c - start if end - start <= source.channels else tirx.min(c - start, source.channels - 1)
            read = source.read(x, n, h, w, inner)
            value = read if value is None else tirx.if_then_else(c >= start, read, value)
        return value

    return Body(tuple(inputs), (), code)


@definition(o.MaxPool2d)
def _max_pool2d(op: o.MaxPool2d, site: Site) -> Body:
    (source,) = site.inputs
    x = source.placeholder(site.batch, "x")
    _, height, width = source.chw
    _, oh, ow = site.out.chw
    geometry, lowest = Geometry(op.stride, op.padding, op.dilation), tirx.const(op.out.range[0], "int32")
    r, q = (te.reduce_axis((0, k), name=name) for k, name in zip(op.kernel, "rq", strict=True))

    def value(n: Expr, h: Expr, v: Expr, c: Expr) -> Expr:
        y, z = geometry.position(h, v, r, q)
        code = source.read(x, n, y, z, source_channel(c, site, source))
        return tirx.if_then_else(inside((height, width), y, z), code, lowest) if any(op.padding) else code

    best = te.compute(
        (site.batch, oh, ow, site.out.channels), lambda n, h, v, c: te.max(value(n, h, v, c), axis=[r, q]), name="sum"
    )
    return Body((x,), (), lambda n, h, v, c: best[n, h, v, c])


@definition(o.AvgPool2d)
def _avg_pool2d(op: o.AvgPool2d, site: Site) -> Body:
    (source,) = site.inputs
    x = source.placeholder(site.batch, "x")
    _, height, width = source.chw
    _, oh, ow = site.out.chw
    constants = [constant(site.constants[name], name) for name in ("multiplier", "shift")]
    m, s = (tensor for tensor, _ in constants)
    one_count = site.constants["multiplier"].size == 1
    geometry = Geometry(op.stride, op.padding)
    r, q = (te.reduce_axis((0, k), name=name) for k, name in zip(op.kernel, "rq", strict=True))

    def value(n: Expr, h: Expr, v: Expr, c: Expr) -> Expr:
        y, z = geometry.position(h, v, r, q)
        code = source.read(x, n, y, z, source_channel(c, site, source)) - source.type.zero_point
        return (
            tirx.if_then_else(inside((height, width), y, z), code, tirx.const(0, "int32")) if any(op.padding) else code
        )

    total = te.compute(
        (site.batch, oh, ow, site.out.channels), lambda n, h, v, c: te.sum(value(n, h, v, c), axis=[r, q]), name="sum"
    )

    def code(n: Expr, h: Expr, v: Expr, c: Expr) -> Expr:
        y, z = (0, 0) if one_count else (h, v)
        return requantized(op, [(total[n, h, v, c], m[y, z])], s[y, z], site.constants["shift"], 31)

    return Body((x,), tuple(constants), code)


@definition(o.Nearest)
def _nearest(op: o.Nearest, site: Site) -> Body:
    (source,) = site.inputs
    x = source.placeholder(site.batch, "x")
    constants = [constant(site.constants[name], name) for name in ("row", "column")]
    row, column = (tensor for tensor, _ in constants)
    return Body(
        (x,),
        tuple(constants),
        lambda n, h, w, c: source.read(x, n, row[h], column[w], source_channel(c, site, source)),
    )


@definition(o.Bilinear)
def _bilinear(op: o.Bilinear, site: Site) -> Body:
    (source,) = site.inputs
    x = source.placeholder(site.batch, "x")
    constants = [constant(site.constants[name], name) for name in op.constants]
    row, row_part, column, column_part, m, s = (tensor for tensor, _ in constants)
    _, height, width = source.chw
    whole = 1 << op.part_bits

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        def at(r: int, q: int) -> Expr:
            y, z = tirx.min(row[h] + r, height - 1), tirx.min(column[w] + q, width - 1)
            return source.read(x, n, y, z, source_channel(c, site, source)) - source.type.zero_point

        def across(r: int) -> Expr:
            return at(r, 0) * (whole - column_part[w]) + at(r, 1) * column_part[w]

        total = across(0) * (whole - row_part[h]) + across(1) * row_part[h]
        return requantized(op, [(total, m[0])], s[0], site.constants["shift"], 30)

    return Body((x,), tuple(constants), code)


@definition(o.Flatten)
def _flatten(op: o.Flatten, site: Site) -> Body:
    (source,) = site.inputs
    x = source.placeholder(site.batch, "x")
    _, height, width = source.chw

    def code(n: Expr, h: Expr, w: Expr, f: Expr) -> Expr:
        g = tirx.min(f, op.out.shape[0] - 1)  # features are ordered (C, H, W)
        return source.read(x, n, g // width % height, g % width, g // (height * width))

    return Body((x,), (), code)
