"""Quantize weights: signed, symmetric, one scale for every output channel, group of channels, or layer."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from hawq.integer.arithmetic import code_range, quantize
from hawq.quantizers.gradients import StepGradient
from hawq.quantizers.normalise import WeightNorm
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
    """Return values, (R,), raised to 2^-16 of the layer's largest, so that their ratios stay dyadic numbers.

    Channels below it exist in real networks (dead behind a batch norm); their codes are zero either way.
    """
    floor = values.max() * _SMALLEST_CHANNEL
    return torch.maximum(values, torch.where(floor > 0, floor, torch.ones_like(floor)))  # an all-zero layer: 1


def scale_over(limits: Tensor, bits: int) -> Tensor:
    """Return limit / (2^(b-1) - 1), (R,), of the largest magnitudes that have a code."""
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


def bias_step(codes: Tensor, bits: int) -> Tensor:
    """Return the least powers of two, float32, (O,), of which the biases are multiples with codes of `bits` bits.

    Every channel has a shift of its own: one for a layer would follow dead channels, whose scale is next to nothing and
    whose codes are millions.

    Args:
        codes: of biases at scale sx * sw, real numbers, (O,).
        bits: 2..32.
    """
    needed = codes.detach().abs().float() / code_range(bits, signed=True)[1]
    return torch.exp2(torch.ceil(torch.log2(needed.clamp(min=1))))


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

    A method sees rows: the weights that share a scale, those of `weight_group` neighbouring output channels or of the
    whole layer, normalised as `weight_norm` says.

    Args:
        bits: of the codes; one of `widths`.
        weight: float, (O, ...), to begin with.
        options: of the network; `weight_group` divides O.
    """

    widths: ClassVar[range] = range(2, 9)
    """Bits it can have."""
    everywhere: ClassVar[bool] = False
    """Whether it also serves the pinned units."""
    scales_given: ClassVar[bool] = False
    """Whether every channel has a scale that it was given, whatever `weight_group` and `weight_norm` say."""

    def __init__(self, bits: int, weight: Tensor, options: QuantOptions) -> None:
        super().__init__()
        self.bits, self.options = bits, options
        self._norm, self._fan = WeightNorm(options.weight_norm), weight[0].numel()

    @abstractmethod
    def row_scale(self, rows: Tensor) -> Tensor:
        """Return the scales, float32, (R,), positive, of rows (R, n); no gradient passes."""

    @abstractmethod
    def quantize(self, rows: Tensor) -> Tensor:
        """Return the fake-quantized rows, float32, (R, n): the row's scale times integers in -127..127."""

    def rows(self, weight: Tensor) -> Tensor:
        """Return the rows, float32, (R, n), of weights (O, ...)."""
        return self._normalised(weight)[0]

    def scale(self, weight: Tensor) -> Tensor:
        """Return the scales, float32, (O,), positive, of weights (O, ...)."""
        rows, deviation = self._normalised(weight.detach())
        scale = self.row_scale(rows)
        scale = scale if deviation is None else scale * deviation
        return scale[:, None].expand(-1, len(weight) // len(scale)).flatten()

    def forward(self, weight: Tensor) -> Tensor:
        """Return the fake-quantized weights, (O, ...), with the gradients of the method."""
        with torch.autocast(weight.device.type, enabled=False):
            rows, deviation = self._normalised(weight)
            quantized = self.quantize(rows)
            return (quantized if deviation is None else quantized * deviation[:, None]).view(weight.shape)

    @torch.no_grad()
    def codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the integers, float32, (O, ...), and the scales, float32, (O,), of weights (O, ...)."""
        scale = self.scale(weight)
        return torch.round(self(weight) / per_channel(scale, weight)), scale

    def gradient_factor(self, rows: Tensor, highest: int = 1) -> float:
        """Return what the gradient of a number that is learned for every row is multiplied by.

        Args:
            rows: (R, n).
            highest: code, of uniform ones.
        """
        return StepGradient(self.options.step_gradient).factor(rows.shape[1], self._fan, highest)

    def extra_repr(self) -> str:
        """Show the bits."""
        return f"bits={self.bits}"

    def _normalised(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the rows, and the standard deviations they were divided by, (R,), if they were."""
        rows = weight.float().reshape(len(weight) // (self.options.weight_group or len(weight)), -1)
        if self._norm.centres:
            rows = rows - rows.mean(1, keepdim=True)
        if not self._norm.divides:
            return rows, None
        deviation = channel_floor(rows.detach().std(1, correction=0))
        return rows / deviation[:, None], deviation
