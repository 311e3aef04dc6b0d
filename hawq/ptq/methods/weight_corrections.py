"""`weight-variance`, `weight-mean`, `squant`: give quantized weights back what rounding took of their moments."""

import math

import torch
from torch import Tensor

from hawq.ptq.registry import Stage, register_method
from hawq.ptq.weights import quantized_weights
from hawq.ptq.workbench import Workbench

__all__ = ["balanced"]


@register_method("weight-variance", Stage.MODEL)
def _weight_variance(bench: Workbench) -> None:
    """Give every channel of quantized weights its standard deviation back, by its scale (ACIQ)."""
    for weights in quantized_weights(bench):
        found = (weights.codes * weights.scale[:, None]).std(1, correction=0)
        wanted = weights.real.std(1, correction=0)
        usable = (found > 0) & (wanted > 0)
        weights.give(bench, weights.codes, torch.where(usable, weights.scale * wanted / found, weights.scale))


@register_method("weight-mean", Stage.MODEL)
def _weight_mean(bench: Workbench) -> None:
    """Give every channel of quantized weights its mean back, by rounding a few of them the other way (ACIQ)."""
    for weights in quantized_weights(bench):
        codes = balanced(weights.real / weights.scale[:, None], weights.codes, weights.limits)
        weights.give(bench, codes, weights.scale)


@register_method("squant", Stage.MODEL)
def _squant(bench: Workbench) -> None:
    """Give every kernel of quantized weights its mean back, then every channel, as weight-mean does (SQuant)."""
    for weights in quantized_weights(bench):
        shape = bench.graph.weight_shape(weights.unit)
        kernels = (-1, math.prod(shape[2:]))
        steps, limits = weights.real / weights.scale[:, None], weights.limits.repeat_interleave(shape[1])
        codes = balanced(steps.view(kernels), weights.codes.view(kernels), limits).view_as(steps)
        weights.give(bench, balanced(steps, codes, weights.limits), weights.scale)


def balanced(steps: Tensor, codes: Tensor, limits: Tensor) -> Tensor:
    """Return codes whose sum in each row is the integer nearest to that of the values, where that can be reached.

    The mean of ACIQ's corrected weights lies off the grid; here it is met to half a step of one weight. Of the weights
    that were rounded towards the excess those farthest from their code move to the other neighbour, so that none errs
    by a whole step (2202.07471).

    Args:
        steps: weights in scales, float32, (R, n).
        codes: integers, float32, (R, n).
        limits: largest magnitudes of codes, float32, (R,).
    """
    error = codes - steps
    excess = error.sum(1, keepdim=True, dtype=torch.float64)
    back = -excess.sign().float()
    towards = -back * error  # how far beyond its value a code lies, in the direction of the excess
    movable = (towards > 0) & ((codes + back).abs() <= limits[:, None])
    order = torch.where(movable, towards, -torch.inf).argsort(dim=1, descending=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(codes.shape[1], device=codes.device).expand_as(order)
    )
    return codes + back * (movable & (rank < torch.round(excess.abs())))
