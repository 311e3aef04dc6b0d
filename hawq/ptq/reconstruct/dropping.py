"""Leave values unquantized at random while a block is learned (QDrop, 2203.05740)."""

import torch
from torch import Tensor

from hawq.quantizers.activation import UniformActivation
from hawq.quantizers.lsq import quantize_by_step
from hawq.quantizers.lsq_plus import LsqPlusActivation

__all__ = ["DroppingRange", "chosen", "mix"]

_BYTE = 256


class DroppingRange(LsqPlusActivation):
    """Learn the range of a uniform quantizer; values pass as they are with some probability.

    Args:
        begin: quantizer whose range it begins at.
        drop: the probability, 0..1.
        generator: of the choice.
    """

    def __init__(self, begin: UniformActivation, drop: float, generator: torch.Generator) -> None:
        super().__init__(begin.bits, begin.grid, begin.options)
        self.begin_at(begin.step(), begin.lowest())
        self._drop, self._generator = drop, generator

    def quantize(self, value: Tensor) -> Tensor:
        """Return the values, some of them fake-quantized; gradients are those of `lsq+`, not scaled."""
        codes, zero_point = self.grid.codes(self.bits), self.scale_and_zero_point()[1]
        passed = chosen(value.shape, self._drop, self._generator)
        return quantize_by_step(value, self._positive(), *codes, self.offset, zero_point, passed)


def chosen(shape: torch.Size, share: float, generator: torch.Generator) -> Tensor | None:
    """Return a tensor that is True with a probability, in steps of 1/256; None: nowhere."""
    threshold = round(share * _BYTE)
    if threshold in (0, _BYTE):
        return torch.ones(shape, dtype=torch.bool) if threshold else None
    count = shape.numel()
    words = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(1 << 63), None, generator=generator)
    return words.view(torch.uint8)[:count].view(shape) < threshold


def mix(quantized: Tensor, real: Tensor, drop: float, generator: torch.Generator) -> Tensor:
    """Return a tensor whose values are those of `real` with probability `drop`, else those of `quantized`."""
    dropped = chosen(quantized.shape, drop, generator)
    return quantized if dropped is None else quantized.lerp(real, dropped.float())
