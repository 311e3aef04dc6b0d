"""Measure how far quantization moves the weights."""

from torch import Tensor

from hawq.quantizers.weight import per_channel, quantize_weight, weight_scale

__all__ = ["WIDTHS", "squared_error"]

WIDTHS = tuple(range(2, 9))
"""Bits a unit's weights can have."""


def squared_error(weight: Tensor, bits: int) -> float:
    """Return ||Q_b(W) - W||_2^2, summed over all elements in float64.

    Q_b is the quantizer of training and export: signed, symmetric, one scale per output channel.

    Args:
        weight: float, (O, ...), batch norm folded.
        bits: 2..8.
    """
    scale = weight_scale(weight, bits)
    restored = quantize_weight(weight, scale, bits).double() * per_channel(scale, weight).double()
    return float((restored - weight.double()).square().sum())
