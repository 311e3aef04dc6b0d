"""Fold batch norm into the weights and bias of its unit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hawq.graph.ir import BatchNorm, FloatGraph
from hawq.quantizers.weight import per_channel

__all__ = ["NormState", "fold", "fold_affine", "folded_weight", "norm_state"]


@dataclass(frozen=True)
class NormState:
    """Hold the tensors of a batch norm, each float, (C,), and its epsilon."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor
    eps: float


def norm_state(graph: FloatGraph, norm: BatchNorm) -> NormState:
    """Return the tensors a batch norm names; absent weights are ones, absent biases zeros."""
    mean, var = graph.tensors[norm.mean], graph.tensors[norm.var]
    weight = graph.tensors[norm.weight] if norm.weight else torch.ones_like(mean)
    bias = graph.tensors[norm.bias] if norm.bias else torch.zeros_like(mean)
    return NormState(weight, bias, mean, var, norm.eps)


def fold_affine(bias: Tensor | None, norm: NormState) -> tuple[Tensor, Tensor]:
    """Return the factor f = g / sqrt(var + eps) of the weights and the bias b' = (b - mean) * f + beta (2011.10680).

    Args:
        bias: float, (O,), or None for zeros.
        norm: running statistics and affine parameters of the O channels.
    """
    factor = norm.weight / torch.sqrt(norm.var + norm.eps)
    centred = -norm.mean if bias is None else bias - norm.mean
    return factor, centred * factor + norm.bias


def fold(weight: Tensor, bias: Tensor | None, norm: NormState) -> tuple[Tensor, Tensor]:
    """Return w' = w * f and b' of `fold_affine`; weights are float, (O, ...)."""
    factor, folded_bias = fold_affine(bias, norm)
    return weight * per_channel(factor, weight), folded_bias


def folded_weight(graph: FloatGraph, unit: str) -> tuple[Tensor, Tensor]:
    """Return the weight, (O, ...), and the bias, (O,), of a unit with its batch norm folded in."""
    op = graph.unit(unit)
    weight, bias = graph.tensors[op.weight], graph.tensors[op.bias] if op.bias else None
    if op.norm is not None:
        return fold(weight, bias, norm_state(graph, op.norm))
    return weight, torch.zeros_like(weight.flatten(1)[:, 0]) if bias is None else bias
