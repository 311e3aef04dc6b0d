"""Follow means and standard deviations through a network whose batch norms tell them (1906.04721, section 4.2)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hawq.graph import ir
from hawq.qat.fold import NormState, norm_state

__all__ = ["Moments", "Spread", "censored", "follow", "mean_response", "normalised"]

_LEAST = 1e-12
"""Deviation that stands for none."""


@dataclass(frozen=True)
class Moments:
    """Describe the channels of a tensor as if each were normally distributed.

    Attributes:
        mean: float, (C,).
        std: float, (C,), not negative.
    """

    mean: Tensor
    std: Tensor


def normalised(norm: NormState) -> Moments:
    """Return the moments behind a batch norm: mean beta, deviation |gamma| sqrt(var / (var + eps)).

    The root is 1 but for channels that are dead in training; to give those a deviation of gamma would make them count.
    """
    deviation = norm.weight.abs() * torch.sqrt(norm.var / (norm.var + norm.eps))
    return Moments(norm.bias.detach(), deviation.detach())


@dataclass(frozen=True)
class Spread:
    """Describe a tensor before and after its clamp.

    Attributes:
        before: normal.
        lo: lowest value that passes; None: any.
        hi: highest one, for all channels or each, (C,); None: any.
    """

    before: Moments
    lo: float | None = None
    hi: float | Tensor | None = None

    @property
    def after(self) -> Moments:
        """Mean and standard deviation of what passes the clamp."""
        return self.before if self.lo is None and self.hi is None else censored(self.before, self.lo, self.hi)


def censored(moments: Moments, lo: float | None, hi: float | Tensor | None) -> Moments:
    """Return mean and standard deviation of y = min(max(x, lo), hi), x ~ N(mean, std^2).

    With l = (lo - mean) / std, u = (hi - mean) / std, p = Phi(u) - Phi(l):

        E y   = lo Phi(l) + hi (1 - Phi(u)) + mean p + std (phi(l) - phi(u))
        E y^2 = lo^2 Phi(l) + hi^2 (1 - Phi(u)) + (mean^2 + std^2) p + std ((mean + lo) phi(l) - (mean + hi) phi(u))

    Args:
        moments: of x.
        lo: lowest value; None: any.
        hi: highest value, for all channels or each, (C,); None: any.
    """
    mean, std = moments.mean.double(), moments.std.double().clamp(min=_LEAST)
    first, second, inside = torch.zeros_like(mean), torch.zeros_like(mean), torch.ones_like(mean)
    for limit, side in ((lo, 1), (hi, -1)):
        if limit is None:
            continue
        at = (torch.as_tensor(limit, dtype=mean.dtype) - mean) / std
        density = torch.exp(-at.square() / 2) / math.sqrt(2 * math.pi)
        beyond = torch.special.ndtr(side * at)  # share of the values that are moved to the limit
        first += limit * beyond + side * std * density
        second += limit**2 * beyond + side * std * (mean + limit) * density
        inside -= beyond
    first += mean * inside
    second += (mean.square() + std.square()) * inside
    deviation = (second - first.square()).clamp(min=0).sqrt()
    return Moments(first.to(moments.mean.dtype), deviation.to(moments.std.dtype))


def mean_response(weight: Tensor, mean: Tensor, groups: int = 1) -> Tensor:
    """Return the mean output, (O,), of weights (O, I/groups, ...) on inputs of these channel means, (I,).

    Padding is not seen.
    """
    rows = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    grouped = rows.reshape(groups, -1, rows.shape[1])
    return torch.einsum("goi,gi->go", grouped, mean.reshape(groups, -1)).reshape(-1)


def follow(graph: ir.FloatGraph, known: Mapping[str, Moments]) -> dict[str, Spread]:
    """Return the spread of every tensor of a graph whose batch norms are folded.

    Images count as normalised: mean 0, deviation 1. Elsewhere values of different channels, positions and branches
    count as independent; pools keep the moments.

    Args:
        graph: the float network.
        known: moments of units before their clamp; those of other units follow from their input.
    """
    found: dict[str, Spread] = {}
    for node in graph.nodes.values():
        found[node.name] = _spread(graph, node, [found[name].after for name in node.inputs], known)
    return found


def _spread(graph: ir.FloatGraph, node: ir.Node, inputs: list[Moments], known: Mapping[str, Moments]) -> Spread:
    before = _before(graph, node, inputs, known)
    clamp, limit = getattr(node.op, "clamp", None), getattr(node.op, "limit", None)
    highest = None if clamp is None else clamp.hi
    return Spread(before, None if clamp is None else clamp.lo, graph.tensors[limit] if limit else highest)


def _before(graph: ir.FloatGraph, node: ir.Node, inputs: list[Moments], known: Mapping[str, Moments]) -> Moments:
    match node.op:
        case ir.Input():
            return Moments(torch.zeros(node.shape[0]), torch.ones(node.shape[0]))
        case ir.Conv2d() | ir.Linear() as op:
            return (
                _bounded(graph, op, inputs[0], known[node.name])
                if node.name in known
                else _pushed(graph, op, inputs[0])
            )
        case ir.Norm(norm=norm):
            return normalised(norm_state(graph, norm))
        case ir.Add():
            means, variances = (torch.stack(parts) for parts in zip(*((m.mean, m.std**2) for m in inputs), strict=True))
            return Moments(means.sum(0), variances.sum(0).sqrt())
        case ir.Concat():
            return Moments(torch.cat([m.mean for m in inputs]), torch.cat([m.std for m in inputs]))
        case ir.Flatten():
            each = node.shape[0] // len(inputs[0].mean)
            return Moments(inputs[0].mean.repeat_interleave(each), inputs[0].std.repeat_interleave(each))
        case _:
            return inputs[0]


def _bounded(graph: ir.FloatGraph, op: ir.Conv2d | ir.Linear, source: Moments, known: Moments) -> Moments:
    """Return moments whose deviation is no larger than the weights allow: sum |w| std(x), all inputs in step.

    Channels that hardly have weights have the batch norm's deviation in name only.
    """
    most = mean_response(graph.tensors[op.weight].abs(), source.std, getattr(op, "groups", 1))
    return Moments(known.mean, known.std.minimum(most))


def _pushed(graph: ir.FloatGraph, op: ir.Conv2d | ir.Linear, source: Moments) -> Moments:
    weight, groups = graph.tensors[op.weight], getattr(op, "groups", 1)
    mean = mean_response(weight, source.mean, groups)
    variance = mean_response(weight.square(), source.std.square(), groups)
    return Moments(mean if op.bias is None else mean + graph.tensors[op.bias], variance.sqrt())
