"""Quantize activations by comparing them with thresholds: every monotone quantizer whose steps are not equal."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from hawq.errors import HawqError
from hawq.integer.arithmetic import code_range
from hawq.integer.ops import TensorType
from hawq.quantizers.activation import ActivationQuantizer
from hawq.quantizers.grid import ActivationGrid

__all__ = ["Levels", "ThresholdActivation", "reached"]


def reached(value: Tensor, thresholds: Tensor, strictly: bool = False) -> Tensor:
    """Return how many thresholds are at most x, or below it, of the type and shape of x.

    Args:
        value: x, float.
        thresholds: (..., L - 1), rising; without their last dimension they broadcast to x.
        strictly: count those below x only.
    """
    if thresholds.dim() == 1:
        return torch.bucketize(value, thresholds, right=not strictly).to(value.dtype)
    count = torch.zeros_like(value)
    for threshold in thresholds.unbind(-1):
        count += value > threshold if strictly else value >= threshold
    return count


@dataclass(frozen=True)
class Levels:
    """Say which code every real value gets: x -> codes[number of thresholds that are at most x].

    Attributes:
        thresholds: real values, float64, (L - 1,), in rising order.
        codes: int64, (L,), strictly rising: small integers, or entries of a level table.
        scale: what a code of 1 is worth, a positive float32 number.
    """

    thresholds: Tensor
    codes: Tensor
    scale: float

    def __post_init__(self) -> None:
        """Check that it is a monotone quantizer.

        Raises:
            HawqError: thresholds are not finite or fall, codes do not rise or do not fit 8 bits.
        """
        rising = bool((self.thresholds.diff() >= 0).all()) and bool((self.codes.diff() > 0).all())
        fits = len(self.codes) == len(self.thresholds) + 1 and any(map(self._fits, range(1, 9)))
        if not (bool(torch.isfinite(self.thresholds).all()) and rising and fits):
            raise HawqError(
                "thresholds and codes of an activation must be finite and rise, codes within 8 bits: found thresholds "
                f"{self.thresholds.tolist()}, codes {self.codes.tolist()}; training diverged, lower --lr"
            )

    @property
    def signed(self) -> bool:
        """Whether there are negative codes."""
        return int(self.codes[0]) < 0

    @property
    def bits(self) -> int:
        """Bits that hold every code, 1..8."""
        return next(filter(self._fits, range(1, 9)))

    def _fits(self, bits: int) -> bool:
        lo, hi = code_range(bits, self.signed)
        return lo <= int(self.codes[0]) and int(self.codes[-1]) <= hi

    def code_of(self, value: float) -> int:
        """Return the code of a real value."""
        return int(self.codes[int((self.thresholds <= value).sum())])


class ThresholdActivation(ActivationQuantizer):
    """Quantize with levels that need not be evenly spaced; a value that equals a threshold has reached it.

    It lowers to `Threshold`: behind a unit the thresholds are moved to the accumulator of every channel, batch norm
    and activation included; on a residual stream they are compared with its 16-bit codes.
    """

    uniform = False

    @abstractmethod
    def thresholds(self) -> Tensor:
        """Return the thresholds, float32, (L - 1,), in rising order: the ones that training compares with."""

    @abstractmethod
    def codes(self) -> Tensor:
        """Return the codes, integers of any type, (L,), strictly rising."""

    @property
    def may_be_negative(self) -> bool:
        """Whether the tensor may hold negative values."""
        return self.grid is not ActivationGrid.UNSIGNED

    def observe(self, value: Tensor) -> None:
        """Begin with the first batch of a training that had no calibration."""
        if not bool(self.seen):
            self.calibrate(value)
            self.seen.fill_(1)

    @torch.no_grad()
    def levels(self) -> Levels:
        """Return the present thresholds and codes, on the CPU.

        Raises:
            HawqError: nothing was observed yet, or training broke them.
        """
        thresholds, step = self.thresholds(), self.step()
        self._check(thresholds, step)
        return Levels(thresholds.double().cpu(), self.codes().long().cpu(), float(step))

    def fill(self) -> int:
        """Return the code that padding holds: that of zero, or 0 where quantized maps are padded."""
        return 0 if self.options.pad_after_quant else self.levels().code_of(0.0)

    def tensor_type(self, shape: tuple[int, ...]) -> TensorType:
        """Return the type of a quantized tensor of this shape, (C, H, W) or (F,)."""
        levels = self.levels()
        return TensorType(shape, levels.bits, levels.signed, levels.scale)
