"""Compute every integer op slowly, in Python and numpy int64, straight from the formulas of the architecture page."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from hawq.integer import ops as o

Array = np.ndarray


def run(op: o.Op, inputs: Sequence[Array], types: Sequence[o.TensorType], constants: Mapping[str, Tensor]) -> Array:
    c = {name: tensor.numpy().astype(np.int64) for name, tensor in constants.items()}
    x = [value if value.dtype.kind == "f" else value.astype(np.int64) for value in inputs]
    return globals()[f"_{type(op).__name__.lower()}"](op, x, types, c)


def _round_half_up(value: int, shift: int) -> int:
    quotient, remainder = divmod(value, 1 << shift)  # floor division, remainder >= 0
    return quotient + (remainder >= 1 << (shift - 1))


def _finish(op: o.Op, total: int, m: int, s: int) -> int:
    return min(max(_round_half_up(int(total) * int(m), int(s)) + op.out.zero_point, op.lo), op.hi)


def _quantizeinput(op, x, types, c) -> Array:
    quotient = x[0].astype(np.float32) / np.float32(op.out.scale)
    return np.clip(np.rint(quotient).astype(np.int64) + op.out.zero_point, op.lo, op.hi)


def _pixelinput(op, x, types, c) -> Array:
    out = np.empty_like(x[0])
    for index in np.ndindex(x[0].shape):
        value = int(x[0][index]) * int(c["multiplier"][index[1]]) + int(c["offset"][index[1]])
        out[index] = min(max(_round_half_up(value, int(c["shift"][0])), op.lo), op.hi)
    return out


def _conv2d(op, x, types, c) -> Array:
    (top, _, left, _), (sh, sw), (dh, dw) = op.padding, op.stride, op.dilation
    weight, zero = c["weight"], types[0].zero_point
    outputs, per_group, kh, kw = weight.shape
    batch, height, width = x[0].shape[0], *op.out.shape[1:]
    out = np.empty((batch, outputs, height, width), np.int64)
    for n, k, oh, ow in np.ndindex(out.shape):
        group = k // (outputs // op.groups)
        total = int(c["bias"][k])
        for i, r, q in np.ndindex(per_group, kh, kw):
            h, w = oh * sh - top + r * dh, ow * sw - left + q * dw
            inside = 0 <= h < x[0].shape[2] and 0 <= w < x[0].shape[3]
            value = int(x[0][n, group * per_group + i, h, w]) - zero if inside else op.fill
            total += value * int(weight[k, i, r, q])
        out[n, k, oh, ow] = total if op.accumulates else _finish(op, total, c["multiplier"][k], c["shift"][k])
    return out


def _linear(op, x, types, c) -> Array:
    total = (x[0] - types[0].zero_point) @ c["weight"].T + c["bias"]
    if op.accumulates:
        return total
    out = np.empty_like(total)
    for n, k in np.ndindex(out.shape):
        out[n, k] = _finish(op, total[n, k], c["multiplier"][k], c["shift"][k])
    return out


def _requantize(op, x, types, c) -> Array:
    finish = np.vectorize(lambda v: _finish(op, v - types[0].zero_point, c["multiplier"][0], c["shift"][0]))
    return finish(x[0])


def _threshold(op, x, types, c) -> Array:
    out = np.empty_like(x[0])
    for index in np.ndindex(out.shape):
        row = c["threshold"][index[1] if len(c["threshold"]) > 1 else 0]
        out[index] = c["level"][sum(int(x[0][index]) >= int(t) for t in row)]
    return out


def _limit(op, x, types, c) -> Array:
    out = np.empty_like(x[0])
    for index in np.ndindex(out.shape):
        out[index] = min(int(x[0][index]), int(c["limit"][index[1]]))
    return out


def _add(op, x, types, c) -> Array:
    ma, mb = (int(m) for m in c["multiplier"])

    def one(a: int, b: int) -> int:
        total = (int(a) - types[0].zero_point) * ma + (int(b) - types[1].zero_point) * mb
        return min(max(_round_half_up(total, int(c["shift"][0])) + op.out.zero_point, op.lo), op.hi)

    return np.vectorize(one)(x[0], x[1])


def _mul(op, x, types, c) -> Array:
    out = np.empty_like(x[0])
    for index in np.ndindex(out.shape):
        other = index if x[1].shape == x[0].shape else index[:2] + (0,) * (x[1].ndim - 2)
        product = (int(x[0][index]) - types[0].zero_point) * (int(x[1][other]) - types[1].zero_point)
        out[index] = _finish(op, product, c["multiplier"][0], c["shift"][0])
    return out


def _table(op, x, types, c) -> Array:
    by_code = dict(zip(range(types[0].range[0], types[0].range[1] + 1), c["table"].tolist(), strict=True))
    return np.vectorize(by_code.__getitem__)(x[0])


def _concat(op, x, types, c) -> Array:
    return np.concatenate(x, axis=1)


def _windows(op, x, oh, ow, dilation=(1, 1)):
    for r, q in np.ndindex(*op.kernel):
        h, w = oh * op.stride[0] - op.padding[0] + r * dilation[0], ow * op.stride[1] - op.padding[2] + q * dilation[1]
        if 0 <= h < x.shape[0] and 0 <= w < x.shape[1]:
            yield int(x[h, w])


def _maxpool2d(op, x, types, c) -> Array:
    out = np.empty((x[0].shape[0], *op.out.shape), np.int64)
    for n, k, oh, ow in np.ndindex(out.shape):
        out[n, k, oh, ow] = max(_windows(op, x[0][n, k], oh, ow, op.dilation))
    return out


def _avgpool2d(op, x, types, c) -> Array:
    out = np.empty((x[0].shape[0], *op.out.shape), np.int64)
    shape = out.shape[2:]
    m, s = np.broadcast_to(c["multiplier"], shape), np.broadcast_to(c["shift"], shape)
    for n, k, oh, ow in np.ndindex(out.shape):
        total = sum(v - types[0].zero_point for v in _windows(op, x[0][n, k], oh, ow))
        out[n, k, oh, ow] = _finish(op, total, m[oh, ow], s[oh, ow])
    return out


def _nearest(op, x, types, c) -> Array:
    out = np.empty((x[0].shape[0], *op.out.shape), np.int64)
    for n, k, i, j in np.ndindex(out.shape):
        out[n, k, i, j] = x[0][n, k, c["row"][i], c["column"][j]]
    return out


def _bilinear(op, x, types, c) -> Array:
    out, whole = np.empty((x[0].shape[0], *op.out.shape), np.int64), 1 << op.part_bits
    for n, k, i, j in np.ndindex(out.shape):
        total = 0
        for r, q in np.ndindex(2, 2):
            h, w = min(c["row"][i] + r, x[0].shape[2] - 1), min(c["column"][j] + q, x[0].shape[3] - 1)
            p, s = int(c["row_part"][i]), int(c["column_part"][j])
            weight = (p if r else whole - p) * (s if q else whole - s)
            total += (int(x[0][n, k, h, w]) - types[0].zero_point) * weight
        out[n, k, i, j] = _finish(op, total, c["multiplier"][0], c["shift"][0])
    return out


def _flatten(op, x, types, c) -> Array:
    return x[0].reshape(x[0].shape[0], -1)
