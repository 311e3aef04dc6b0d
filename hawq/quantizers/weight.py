"""Quantize weights: signed, symmetric, one scale per output channel."""

import torch
from torch import Tensor

from hawq.integer.arithmetic import quantize

__all__ = ["bias_floor", "per_channel", "quantize_weight", "weight_limit", "weight_scale"]

_SMALLEST_CHANNEL = 2.0**-16
_BIAS_LIMIT = 2.0**29


def weight_limit(bits: int) -> int:
    """Return the largest weight code, 2^(b-1) - 1; the smallest is its negative."""
    return (1 << (bits - 1)) - 1


def per_channel(scale: Tensor, weight: Tensor) -> Tensor:
    """Reshape scales (O,) so that they broadcast over weights (O, ...)."""
    return scale.view(-1, *(1,) * (weight.dim() - 1))


def weight_scale(weight: Tensor, bits: int) -> Tensor:
    """Return max |w_c| / (2^(b-1) - 1) of every output channel c (2011.10680, section 2).

    A channel that is zero, or 2^-16 of the layer's largest, takes that floor as its scale: its codes are zero either
    way, and the ratio of scales stays a dyadic number.

    Args:
        weight: float, (O, ...), batch norm folded.
        bits: 2..8.

    Returns:
        Scales, float32, (O,), positive.
    """
    largest = weight.detach().float().flatten(1).abs().amax(dim=1)
    floor = largest.max() * _SMALLEST_CHANNEL
    floor = torch.where(floor > 0, floor, torch.ones_like(floor))  # an all-zero layer
    return torch.maximum(largest, floor) / weight_limit(bits)


def bias_floor(bias: Tensor, input_scale: Tensor) -> Tensor:
    """Return the least weight scale with which the bias is a code below 2^29: |b| / (sx * 2^29).

    Channels with a large bias and hardly any weight exist in real networks (dead channels behind a batch norm).

    Args:
        bias: float, (O,).
        input_scale: sx, scalar.
    """
    return bias.detach().float().abs() / (input_scale * _BIAS_LIMIT)


def quantize_weight(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Return the codes clamp(rint(w / scale_c), -(2^(b-1)-1), 2^(b-1)-1), int32, of the shape of `weight`.

    Args:
        weight: float, (O, ...).
        scale: float32, (O,).
        bits: 2..8.
    """
    limit = weight_limit(bits)
    return quantize(weight.float(), per_channel(scale, weight), 0, -limit, limit)
