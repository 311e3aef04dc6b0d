"""Compute the canonical ops on real tensors, each once, for the float graph and for training alike."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hawq.graph import ir

__all__ = ["average_pool", "clamp", "convolve", "max_pool", "pointwise", "resize"]

_RELU = ir.Clamp(0.0, None)


def clamp(value: Tensor, limits: ir.Clamp | None, highest: Tensor | None = None) -> Tensor:
    """Return min(max(value, lo), hi), or the value where there are no limits.

    Args:
        value: (N, C, ...).
        limits: of all channels.
        highest: of every channel, (C,).
    """
    if limits == _RELU:
        value = F.relu(value)  # its backward pass is several times cheaper than a clamp's
    elif limits is not None:
        value = value.clamp(limits.lo, limits.hi)
    return value if highest is None else value.minimum(highest.view(-1, *(1,) * (value.dim() - 2)))


def convolve(value: Tensor, weight: Tensor, bias: Tensor | None, op: ir.Conv2d, fill: float = 0.0) -> Tensor:
    """Convolve (N, C, H, W) with weights (O, C/groups, KH, KW), `fill` as padding on each side as the op says."""
    top, bottom, left, right = op.padding
    if (top, left) == (bottom, right) and not fill:
        return F.conv2d(value, weight, bias, op.stride, (top, left), op.dilation, op.groups)
    padded = F.pad(value, (left, right, top, bottom), value=fill)
    return F.conv2d(padded, weight, bias, op.stride, 0, op.dilation, op.groups)


def max_pool(value: Tensor, op: ir.MaxPool2d) -> Tensor:
    """Return the maximum of every window; padding never wins."""
    top, bottom, left, right = op.padding
    padded = F.pad(value, (left, right, top, bottom), value=-torch.inf) if any(op.padding) else value
    return F.max_pool2d(padded, op.kernel, op.stride, 0, op.dilation)


def average_pool(value: Tensor, op: ir.AvgPool2d) -> Tensor:
    """Return the sum of every window over its count."""
    top, bottom, left, right = op.padding
    padded = F.pad(value, (left, right, top, bottom)) if any(op.padding) else value
    if isinstance(op.counts, int):
        return F.avg_pool2d(padded, op.kernel, op.stride, divisor_override=op.counts)
    total = F.avg_pool2d(padded, op.kernel, op.stride, divisor_override=1)
    return total / torch.tensor(op.counts, dtype=value.dtype, device=value.device)


def resize(value: Tensor, op: ir.Resize) -> Tensor:
    """Return the map at the op's positions, linear between rows, then between columns."""
    for axis, positions in ((2, op.rows), (3, op.columns)):
        at = torch.tensor(positions, dtype=torch.float64, device=value.device)
        first = at.long()
        low = value.index_select(axis, first)
        if not all(position.is_integer() for position in positions):
            high = value.index_select(axis, (first + 1).clamp(max=value.shape[axis] - 1))
            low = torch.lerp(low, high, (at - first).to(value.dtype).view(-1, *[1] * (3 - axis)))
        value = low
    return value


def _over_map(factor: Tensor, value: Tensor) -> Tensor:
    """Return one number a channel, (N, C), so that it multiplies a map (N, C, H, W)."""
    return factor.view(*factor.shape, *[1] * (value.dim() - factor.dim()))


def pointwise(op: ir.Op, inputs: Sequence[Tensor]) -> Tensor:
    """Compute any op that has no weights: Add, Mul, Unary, Relu, Concat, MaxPool2d, AvgPool2d, Resize, Flatten.

    Raises:
        TypeError: the op has weights, or is the input.
    """
    match op:
        case ir.Add():
            return clamp(inputs[0] + inputs[1], op.clamp)
        case ir.Mul():
            return clamp(inputs[0] * _over_map(inputs[1], inputs[0]), op.clamp)
        case ir.Unary():
            return op.curve(inputs[0])
        case ir.Relu():
            return clamp(inputs[0], op.clamp)
        case ir.Concat():
            return torch.cat(list(inputs), dim=1)
        case ir.MaxPool2d():
            return max_pool(inputs[0], op)
        case ir.AvgPool2d():
            return average_pool(inputs[0], op)
        case ir.Resize():
            return resize(inputs[0], op)
        case ir.Flatten():
            return inputs[0].flatten(1)
        case _:
            raise TypeError(f"{op} is not computed from its inputs alone")
