"""Define every integer op once, as tensor expressions over codes; backends only choose storage and schedules.

The formulas are those of hawq.integer.arithmetic. int32 arithmetic of the compiler assumes no overflow, which the
certificate proves for every sum here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from tvm import te, tirx

from hawq.integer import ops as o
from hawq.integer.geometry import Padding, Pair
from tvm_export.storage import Expr, Storage, round_up

__all__ = ["BLOCK", "DEPTH", "Definition", "Site", "define", "dense_weight", "offset_bias", "per_channel"]

BLOCK, DEPTH = 16, 4
"""Output channels in a block of weights, and input channels multiplied at once (one AVX512-VNNI instruction)."""

_OpT = TypeVar("_OpT", bound=o.Op)


@dataclass(frozen=True)
class Site:
    """An op together with the storage of its tensors.

    Attributes:
        op: the operation.
        inputs: storage of its input tensors.
        out: storage of its output.
        constants: numpy arrays by their short names.
        batch: images per call.
    """

    op: o.Op
    inputs: tuple[Storage, ...]
    out: Storage
    constants: Mapping[str, np.ndarray]
    batch: int


@dataclass(frozen=True)
class Definition:
    """A kernel as tensor expressions: activations, then constants, then the output."""

    activations: tuple[te.Tensor, ...]
    constants: tuple[tuple[te.Tensor, np.ndarray], ...]
    out: te.Tensor

    @property
    def arguments(self) -> list[te.Tensor]:
        """All tensors of the kernel's signature."""
        return [*self.activations, *(tensor for tensor, _ in self.constants), self.out]


_DEFINITIONS: dict[type[o.Op], Callable[[Any, Site], Definition]] = {}


def define(site: Site) -> Definition:
    """Return the kernel of an op."""
    return _DEFINITIONS[type(site.op)](site.op, site)


def _definition(kind: type[_OpT]) -> Callable[[Callable[[_OpT, Site], Definition]], Callable[[_OpT, Site], Definition]]:
    def register(function: Callable[[_OpT, Site], Definition]) -> Callable[[_OpT, Site], Definition]:
        _DEFINITIONS[kind] = function
        return function

    return register


# --- shared expressions ----------------------------------------------------------------------------------------------


def rounding_shift(value: Expr, shift: Expr) -> Expr:
    """Return (value + 2^(s-1)) >> s in int64: halves round up."""
    s = shift.astype("int64")
    return tirx.shift_right(value + tirx.shift_left(tirx.const(1, "int64"), s - 1), s)


def dyadic(value: Expr, multiplier: Expr, shift: Expr) -> Expr:
    """Return (value * m + 2^(s-1)) >> s in int64."""
    return rounding_shift(value.astype("int64") * multiplier.astype("int64"), shift)


def clamp(value: Expr, op: o._Clamped) -> Expr:
    """Add the zero point to a value in int64 and cut it to the clamp of the op."""
    shifted = value + tirx.const(op.out.zero_point, "int64")
    return tirx.max(tirx.min(shifted, tirx.const(op.hi, "int64")), tirx.const(op.lo, "int64"))


def _constant(array: np.ndarray, name: str) -> tuple[te.Tensor, np.ndarray]:
    array = np.ascontiguousarray(array)
    return te.placeholder(array.shape, str(array.dtype), name=name), array


def per_channel(array: np.ndarray, channels: int, fill: int = 0) -> np.ndarray:
    """Return (O,) widened to the stored channels."""
    return np.pad(array, (0, channels - len(array)), constant_values=fill)


def _inside(size: tuple[int, int], h: Expr, w: Expr) -> Expr:
    return tirx.all(h >= 0, h < size[0], w >= 0, w < size[1])


@dataclass(frozen=True)
class Geometry:
    """Where windows lie: padding is (top, bottom, left, right). A linear layer is the default on a 1x1 map."""

    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


def _window(geometry: Geometry) -> Callable[[Expr, Expr, Expr, Expr], tuple[Expr, Expr]]:
    """Return (h, w, kh, kw) -> position in the unpadded input."""
    (sh, sw), (dh, dw), (top, _, left, _) = geometry.stride, geometry.dilation, geometry.padding
    return lambda h, w, kh, kw: (h * sh + kh * dh - top, w * sw + kw * dw - left)


# --- inputs ----------------------------------------------------------------------------------------------------------


@_definition(o.QuantizeInput)
def _quantize_input(op: o.QuantizeInput, site: Site) -> Definition:
    channels, height, width = site.out.chw
    image = te.placeholder((site.batch, channels, height, width), "float32", name="image")
    zero, scale = op.out.zero_point, tirx.const(op.out.scale, "float32")

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        steps = te.nearbyint(image[n, tirx.min(c, channels - 1), h, w] / scale)  # IEEE division, ties to even
        limited = te.max(te.min(steps, tirx.const(op.hi - zero, "float32")), tirx.const(op.lo - zero, "float32"))
        return limited.astype("int32") + zero

    return Definition((image,), (), site.out.write(site.batch, code))


@_definition(o.PixelInput)
def _pixel_input(op: o.PixelInput, site: Site) -> Definition:
    channels, height, width = site.out.chw
    image = te.placeholder((site.batch, channels, height, width), "uint8", name="image")
    constants = [_constant(site.constants[name], name) for name in ("multiplier", "offset", "shift")]
    m, b, s = (tensor for tensor, _ in constants)

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        k = tirx.min(c, channels - 1)
        value = rounding_shift(image[n, k, h, w].astype("int64") * m[k] + b[k], s[0])  # the offset holds the zero point
        return tirx.max(tirx.min(value, tirx.const(op.hi, "int64")), tirx.const(op.lo, "int64"))

    return Definition((image,), tuple(constants), site.out.write(site.batch, code))


# --- convolution and linear ------------------------------------------------------------------------------------------


@_definition(o.Conv2d)
def _conv2d(op: o.Conv2d, site: Site) -> Definition:
    geometry = Geometry(op.stride, op.padding, op.dilation, op.groups)
    bytes_in = site.inputs[0].type.bits <= 8
    return _dense(site, geometry) if op.groups == 1 and bytes_in else _grouped(site, geometry)


@_definition(o.Linear)
def _linear(op: o.Linear, site: Site) -> Definition:
    return _dense(site, Geometry()) if site.inputs[0].type.bits <= 8 else _grouped(site, Geometry())


def dense_weight(site: Site) -> np.ndarray:
    """Return the weight codes as (O, I, KH, KW), int8."""
    weight = site.constants["weight"]
    return weight if weight.ndim == 4 else weight[:, :, None, None]


def offset_bias(site: Site, offset: int) -> np.ndarray:
    """Return bias - offset * sum(w), int32: the zero point, or the shift to unsigned codes, moved out of the sum."""
    total = site.constants["weight"].astype(np.int64).reshape(len(site.constants["bias"]), -1).sum(1)
    return (site.constants["bias"].astype(np.int64) - offset * total).astype(np.int32)


def _epilogue(site: Site, bias: np.ndarray, total: Callable[[Expr, Expr, Expr, Expr], Expr]) -> tuple[Any, te.Tensor]:
    """Return the constants and the output of total + bias, requantized unless the output is the accumulator."""
    channels = site.out.channels
    constants = [_constant(per_channel(bias, channels), "bias")]
    if not site.op.accumulates:
        constants.append(_constant(per_channel(site.constants["multiplier"], channels), "multiplier"))
        constants.append(_constant(per_channel(site.constants["shift"], channels, fill=1), "shift"))
    b, *ms = (tensor for tensor, _ in constants)

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        acc = total(n, h, w, c) + b[c]
        return clamp(dyadic(acc, ms[0][c], ms[1][c]), site.op) if ms else acc  # type: ignore[arg-type]

    return constants, site.out.write(site.batch, code)


def _dense(site: Site, geometry: Geometry) -> Definition:
    """Multiply unsigned bytes by blocked weights (O/16, KH, KW, C/4, 16, 4): u8 x s8 -> s32.

    Signed codes are stored as code + 128; that offset and the zero point leave the sum through the bias.
    """
    (source,), weight = site.inputs, dense_weight(site)
    outputs, channels, kh, kw = weight.shape
    _, height, width = source.chw
    _, oh, ow = site.out.chw
    (top, bottom, left, right), (sh, sw), (dh, dw) = geometry.padding, geometry.stride, geometry.dilation
    depth, blocks = round_up(source.channels, DEPTH) // DEPTH, round_up(site.out.channels, BLOCK) // BLOCK
    offset = 128 if source.type.signed else 0
    zero = source.type.zero_point + offset

    x = source.placeholder(site.batch, "x")
    blocked = np.zeros((blocks * BLOCK, depth * DEPTH, kh, kw), np.int8)
    blocked[:outputs, :channels] = weight
    blocked = blocked.reshape(blocks, BLOCK, depth, DEPTH, kh, kw).transpose(0, 4, 5, 2, 1, 3)
    w, w_array = _constant(blocked, "weight")

    def padded(n: Expr, h: Expr, v: Expr, c: Expr) -> Expr:
        inside = tirx.all(_inside((height, width), h - top, v - left), c < source.channels)
        code = source.read(x, n, h - top, v - left, c) + offset
        return tirx.if_then_else(inside, code.astype("uint8"), tirx.const(zero, "uint8"))

    xp_shape = (site.batch, height + top + bottom, width + left + right, depth * DEPTH)
    xp = te.compute(xp_shape, padded, name="pad")
    r, q, d, e = (te.reduce_axis((0, k), name=name) for k, name in ((kh, "r"), (kw, "q"), (depth, "d"), (DEPTH, "e")))
    acc = te.compute(
        (site.batch, oh, ow, blocks, BLOCK),
        lambda n, h, v, ob, oi: te.sum(
            xp[n, h * sh + r * dh, v * sw + q * dw, d * DEPTH + e].astype("int32")
            * w[ob, r, q, d, oi, e].astype("int32"),
            axis=[r, q, d, e],
        ),
        name="conv",
    )
    constants, out = _epilogue(site, offset_bias(site, zero), lambda n, h, v, c: acc[n, h, v, c // BLOCK, c % BLOCK])
    return Definition((x,), ((w, w_array), *constants), out)


def _grouped(site: Site, geometry: Geometry) -> Definition:
    """Convolve group by group, depthwise included, with weights (KH, KW, I/groups, O); input codes of any width."""
    (source,), weight = site.inputs, dense_weight(site)
    outputs, per_group, kh, kw = weight.shape
    _, height, width = source.chw
    _, oh, ow = site.out.chw
    x = source.placeholder(site.batch, "x")
    spread = np.zeros((kh, kw, per_group, site.out.channels), np.int8)
    spread[..., :outputs] = weight.transpose(2, 3, 1, 0)
    w, w_array = _constant(spread, "weight")
    window, zero = _window(geometry), source.type.zero_point

    def channel(c: Expr, i: Expr) -> Expr:
        if per_group == 1 and outputs == geometry.groups and site.out.channels <= source.channels:
            return c
        return tirx.min(c // (outputs // geometry.groups) * per_group + i, source.channels - 1)

    def product(n: Expr, h: Expr, v: Expr, c: Expr, r: Expr, q: Expr, i: Expr) -> Expr:
        y, z = window(h, v, r, q)
        code = source.read(x, n, y, z, channel(c, i)) - zero
        masked = tirx.if_then_else(_inside((height, width), y, z), code, tirx.const(0, "int32"))
        return (masked if any(geometry.padding) else code) * w[r, q, i, c].astype("int32")

    r, q, i = (te.reduce_axis((0, k), name=name) for k, name in ((kh, "r"), (kw, "q"), (per_group, "i")))
    acc = te.compute(
        (site.batch, oh, ow, site.out.channels),
        lambda n, h, v, c: te.sum(product(n, h, v, c, r, q, i), axis=[r, q, i]),
        name="sum",
    )
    constants, out = _epilogue(site, site.constants["bias"], lambda n, h, v, c: acc[n, h, v, c])
    return Definition((x,), ((w, w_array), *constants), out)


# --- pointwise, pools and moves --------------------------------------------------------------------------------------


@_definition(o.Requantize)
def _requantize(op: o.Requantize, site: Site) -> Definition:
    (source,) = site.inputs
    x = source.placeholder(site.batch, "x")
    constants = [_constant(site.constants[name], name) for name in ("multiplier", "shift")]
    m, s = (tensor for tensor, _ in constants)

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        value = source.read(x, n, h, w, _clip_channel(c, site, source)) - source.type.zero_point
        return clamp(dyadic(value, m[0], s[0]), op)

    return Definition((x,), tuple(constants), site.out.write(site.batch, code))


def _clip_channel(c: Expr, site: Site, source: Storage) -> Expr:
    """Keep a stored channel of the output inside the stored channels of an input that has fewer."""
    return c if site.out.channels <= source.channels else tirx.min(c, source.channels - 1)


@_definition(o.Add)
def _add(op: o.Add, site: Site) -> Definition:
    inputs = [source.placeholder(site.batch, name) for source, name in zip(site.inputs, "ab", strict=True)]
    constants = [_constant(site.constants[name], name) for name in ("multiplier", "shift")]
    m, s = (tensor for tensor, _ in constants)

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        terms = [
            (source.read(x, n, h, w, _clip_channel(c, site, source)) - source.type.zero_point).astype("int64")
            * m[i].astype("int64")
            for i, (x, source) in enumerate(zip(inputs, site.inputs, strict=True))
        ]
        return clamp(rounding_shift(terms[0] + terms[1], s[0]), op)

    return Definition(tuple(inputs), tuple(constants), site.out.write(site.batch, code))


@_definition(o.Concat)
def _concat(op: o.Concat, site: Site) -> Definition:
    inputs = [source.placeholder(site.batch, f"x{i}") for i, source in enumerate(site.inputs)]

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        start, value = 0, None
        for x, source in zip(inputs, site.inputs, strict=True):
            inner = tirx.max(tirx.min(c - start, source.channels - 1), 0)
            read = source.read(x, n, h, w, inner)
            value = read if value is None else tirx.if_then_else(c >= start, read, value)
            start += source.chw[0]
        return value

    return Definition(tuple(inputs), (), site.out.write(site.batch, code))


@_definition(o.MaxPool2d)
def _max_pool2d(op: o.MaxPool2d, site: Site) -> Definition:
    (source,) = site.inputs
    x = source.placeholder(site.batch, "x")
    _, height, width = source.chw
    _, oh, ow = site.out.chw
    window, lowest = _window(Geometry(op.stride, op.padding, op.dilation)), tirx.const(op.out.range[0], "int32")
    r, q = (te.reduce_axis((0, k), name=name) for k, name in zip(op.kernel, "rq", strict=True))

    def value(n: Expr, h: Expr, v: Expr, c: Expr) -> Expr:
        y, z = window(h, v, r, q)
        code = source.read(x, n, y, z, _clip_channel(c, site, source))
        return tirx.if_then_else(_inside((height, width), y, z), code, lowest) if any(op.padding) else code

    best = te.compute(
        (site.batch, oh, ow, site.out.channels), lambda n, h, v, c: te.max(value(n, h, v, c), axis=[r, q]), name="sum"
    )
    return Definition((x,), (), site.out.write(site.batch, lambda n, h, v, c: best[n, h, v, c]))


@_definition(o.AvgPool2d)
def _avg_pool2d(op: o.AvgPool2d, site: Site) -> Definition:
    (source,) = site.inputs
    x = source.placeholder(site.batch, "x")
    _, height, width = source.chw
    _, oh, ow = site.out.chw
    constants = [_constant(site.constants[name], name) for name in ("multiplier", "shift")]
    m, s = (tensor for tensor, _ in constants)
    one_count = site.constants["multiplier"].size == 1
    window = _window(Geometry(op.stride, op.padding))
    r, q = (te.reduce_axis((0, k), name=name) for k, name in zip(op.kernel, "rq", strict=True))

    def value(n: Expr, h: Expr, v: Expr, c: Expr) -> Expr:
        y, z = window(h, v, r, q)
        code = source.read(x, n, y, z, _clip_channel(c, site, source)) - source.type.zero_point
        return (
            tirx.if_then_else(_inside((height, width), y, z), code, tirx.const(0, "int32")) if any(op.padding) else code
        )

    total = te.compute(
        (site.batch, oh, ow, site.out.channels), lambda n, h, v, c: te.sum(value(n, h, v, c), axis=[r, q]), name="sum"
    )

    def code(n: Expr, h: Expr, v: Expr, c: Expr) -> Expr:
        y, z = (0, 0) if one_count else (h, v)
        return clamp(dyadic(total[n, h, v, c], m[y, z], s[y, z]), op)

    return Definition((x,), tuple(constants), site.out.write(site.batch, code))


@_definition(o.Flatten)
def _flatten(op: o.Flatten, site: Site) -> Definition:
    (source,) = site.inputs
    x = source.placeholder(site.batch, "x")
    _, height, width = source.chw

    def code(n: Expr, h: Expr, w: Expr, f: Expr) -> Expr:
        g = tirx.min(f, op.out.shape[0] - 1)  # features are ordered (C, H, W)
        return source.read(x, n, g // width % height, g % width, g // (height * width))

    return Definition((x,), (), site.out.write(site.batch, code))
