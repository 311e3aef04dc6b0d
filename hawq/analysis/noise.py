"""Measure how far quantized values lie from exact ones, beyond the range of the codes and inside it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hawq.integer.arithmetic import code_range
from hawq.qat.unit import QuantizedUnit
from hawq.quantizers import ActivationQuantizer, UniformActivation
from hawq.quantizers.given import GivenWeight
from hawq.quantizers.weight import per_channel, weight_limit

__all__ = ["Noise", "NoiseMeter", "activation_ends", "weight_ends"]

_FAR = 1e30


@dataclass(frozen=True)
class Noise:
    """Compare quantized values q with exact ones x.

    Attributes:
        signal: mean x^2.
        clipping: mean over all values of (q - x)^2 where x lies beyond the lowest or highest code, else of 0.
        rounding: the same of the others; both together are the mean squared error.
        cosine: sum x q / (||x|| ||q||); 1 where both are zero.
    """

    signal: float
    clipping: float
    rounding: float
    cosine: float

    @property
    def error(self) -> float:
        """The mean squared error."""
        return self.clipping + self.rounding

    @property
    def clipped(self) -> float:
        """Share of the squared error that is clipping, 0..1."""
        return self.clipping / self.error if self.error else 0.0

    @property
    def sqnr(self) -> float:
        """10 log10(mean x^2 / mean (q - x)^2), dB; infinite without an error."""
        if not self.error:
            return math.inf
        return 10 * math.log10(self.signal / self.error) if self.signal else -math.inf


class NoiseMeter:
    """Sum up, batch by batch and in float64, what `Noise` needs."""

    def __init__(self) -> None:
        self._sums, self._values = torch.zeros(5, dtype=torch.float64), 0

    def add(self, exact: Tensor, quantized: Tensor, ends: tuple[Tensor, Tensor] | None = None) -> None:
        """Take in values.

        Args:
            exact: x, any shape.
            quantized: q, of the same shape.
            ends: real values of the lowest and the highest code, broadcastable to x; None: nothing is clipped.
        """
        error = (quantized.double() - exact.double()).square()
        clipped = error.new_zeros(())
        if ends is not None:
            clipped = error[(exact < ends[0]) | (exact > ends[1])].sum()
        x, q = exact.double(), quantized.double()
        self._sums += torch.stack([x.square().sum(), q.square().sum(), (x * q).sum(), clipped, error.sum()])
        self._values += exact.numel()

    def noise(self) -> Noise:
        """Return what was found so far."""
        x, q, product, clipped, error = self._sums.tolist()
        cosine = product / math.sqrt(x * q) if x and q else float(x == q)
        return Noise(x / self._values, clipped / self._values, (error - clipped) / self._values, cosine)


def activation_ends(quantizer: ActivationQuantizer) -> tuple[Tensor, Tensor]:
    """Return the real values of the lowest and the highest code of an activation, scalars."""
    if isinstance(quantizer, UniformActivation):
        scale, zero_point = quantizer.scale_and_zero_point()
        lowest, highest = code_range(quantizer.bits, quantizer.grid.signed)
        return scale * (lowest - zero_point), scale * (highest - zero_point)
    low, high = quantizer(torch.tensor([-_FAR, _FAR], device=quantizer.seen.device))
    return low, high


def weight_ends(unit: QuantizedUnit) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest real weight that each channel has a code for, broadcastable to (O, ...).

    Where codes have equal steps they reach to +-(2^(b-1) - 1), or to limits that were given; others, multiples of a
    finer scale, as far as the channel makes use of them.
    """
    codes, scale = unit.quantizer.codes(unit.weight)
    highest = codes.flatten(1).abs().amax(1)
    if isinstance(unit.quantizer, GivenWeight):
        highest = unit.quantizer.limits
    else:
        highest = highest.clamp(min=weight_limit(unit.quantizer.bits))
    end = per_channel(highest * scale, unit.weight)
    return -end, end
