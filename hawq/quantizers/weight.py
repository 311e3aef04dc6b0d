"""Quantize weights: signed, symmetric, one scale per output channel."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from hawq.integer.arithmetic import quantize
from hawq.quantizers.options import QuantOptions

__all__ = [
    "WeightQuantizer",
    "bias_floor",
    "channel_floor",
    "per_channel",
    "quantize_weight",
    "scale_over",
    "weight_limit",
    "weight_scale",
]

_SMALLEST_CHANNEL = 2.0**-16
_BIAS_LIMIT = 2.0**29


def weight_limit(bits: int) -> int:
    """Return the largest weight code, 2^(b-1) - 1; the smallest is its negative."""
    return (1 << (bits - 1)) - 1


def per_channel(scale: Tensor, weight: Tensor) -> Tensor:
    """Reshape scales (O,) so that they broadcast over weights (O, ...)."""
    return scale.view(-1, *(1,) * (weight.dim() - 1))


def channel_floor(values: Tensor) -> Tensor:
    """Return values, (O,), raised to 2^-16 of the layer's largest, so that their ratios stay dyadic numbers.

    Channels below it exist in real networks (dead behind a batch norm); their codes are zero either way.
    """
    floor = values.max() * _SMALLEST_CHANNEL
    return torch.maximum(values, torch.where(floor > 0, floor, torch.ones_like(floor)))  # an all-zero layer: 1


def scale_over(limits: Tensor, bits: int) -> Tensor:
    """Return limit_c / (2^(b-1) - 1), (O,), of the largest magnitude of every channel that has a code."""
    return channel_floor(limits) / weight_limit(bits)


def weight_scale(weight: Tensor, bits: int) -> Tensor:
    """Return max |w_c| / (2^(b-1) - 1) of every output channel c (2011.10680, section 2).

    Args:
        weight: float, (O, ...).
        bits: 2..8.

    Returns:
        Scales, float32, (O,), positive.
    """
    return scale_over(weight.detach().float().flatten(1).abs().amax(dim=1), bits)


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


class WeightQuantizer(nn.Module, ABC):
    """Quantize the weights of one unit: each becomes its channel's scale times an integer of at most 8 bits.

    It works on the weights before batch norm is folded in: folding multiplies a channel by one number, which goes into
    its scale, so the codes are the same whether the statistics are the running ones or the batch's. Integers need not
    be neighbours: a method with other levels returns multiples of a fine scale (its level table). Under autocast its
    arithmetic stays in float32.

    Args:
        bits: of the codes; one of `widths`.
        weight: float, (O, ...), to begin with.
        options: of the network.
    """

    widths: ClassVar[range] = range(2, 9)
    """Bits it can have."""
    everywhere: ClassVar[bool] = False
    """Whether it also serves the pinned units."""

    def __init__(self, bits: int, weight: Tensor, options: QuantOptions) -> None:
        super().__init__()
        self.bits, self.options = bits, options

    @abstractmethod
    def scale(self, weight: Tensor) -> Tensor:
        """Return the scales, float32, (O,), positive, of weights (O, ...)."""

    @abstractmethod
    def quantize(self, weight: Tensor) -> Tensor:
        """Return the fake-quantized weights, float32, (O, ...): scale_c times integers in -127..127."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return the fake-quantized weights, with the gradients of the method."""
        with torch.autocast(weight.device.type, enabled=False):
            return self.quantize(weight.float())

    @torch.no_grad()
    def codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the integers, float32, (O, ...), and the scales, float32, (O,), of weights (O, ...)."""
        scale = self.scale(weight)
        return torch.round(self(weight) / per_channel(scale, weight)), scale

    def extra_repr(self) -> str:
        """Show the bits."""
        return f"bits={self.bits}"
