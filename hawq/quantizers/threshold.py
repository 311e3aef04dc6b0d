"""Quantize activations by comparing them with thresholds: every monotone quantizer whose steps are not equal."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from hawq.errors import HawqError
from hawq.integer.ops import TensorType
from hawq.quantizers.activation import ActivationQuantizer

__all__ = ["Levels", "ThresholdActivation"]


@dataclass(frozen=True)
class Levels:
    """Say which code every real value gets: x -> codes[number of thresholds that are at most x].

    Attributes:
        thresholds: real values, float64, (L - 1,), in rising order.
        codes: int64, (L,), strictly rising: small integers, or entries of a level table.
        scale: what a code of 1 is worth, a positive float32 number.
        bits: of the codes, 1..8.
        signed: whether codes may be negative.
    """

    thresholds: Tensor
    codes: Tensor
    scale: float
    bits: int
    signed: bool

    def __post_init__(self) -> None:
        """Check that it is a monotone quantizer.

        Raises:
            HawqError: thresholds are not finite or fall, codes do not rise or do not fit their bits.
        """
        rising = bool((self.thresholds.diff() >= 0).all()) and bool((self.codes.diff() > 0).all())
        if not (bool(torch.isfinite(self.thresholds).all()) and rising and len(self.codes) == len(self.thresholds) + 1):
            raise HawqError(
                "thresholds and codes of an activation must be finite and rise: found thresholds "
                f"{self.thresholds.tolist()}, codes {self.codes.tolist()}; training diverged, lower --lr"
            )

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
    def levels(self) -> Levels:
        """Return the present thresholds and codes, on the CPU.

        Raises:
            HawqError: nothing was observed yet, or training broke them.
        """

    def step(self) -> Tensor:
        """Return what a code of 1 is worth."""
        return torch.tensor(self.levels().scale)

    def fill(self) -> int:
        """Return the code that padding holds: that of zero, or 0 where quantized maps are padded."""
        return 0 if self.options.pad_after_quant else self.levels().code_of(0.0)

    def tensor_type(self, shape: tuple[int, ...]) -> TensorType:
        """Return the type of a quantized tensor of this shape, (C, H, W) or (F,)."""
        levels = self.levels()
        return TensorType(shape, levels.bits, levels.signed, levels.scale)
