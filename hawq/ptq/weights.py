"""Take the quantized weights of a network apart, so that a method may change them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hawq.ptq.workbench import Workbench
from hawq.quantizers.given import GivenWeight
from hawq.quantizers.minmax import MinMaxWeight
from hawq.quantizers.weight import weight_limit

__all__ = ["QuantizedWeights", "quantized_weights"]


@dataclass(frozen=True)
class QuantizedWeights:
    """The weights of one unit, before and after they were quantized; rows are output channels.

    Attributes:
        unit: its name.
        real: float32, (O, n).
        codes: integers, float32, (O, n).
        scale: float32, (O,).
        limits: largest magnitudes of codes, float32, (O,).
    """

    unit: str
    real: Tensor
    codes: Tensor
    scale: Tensor
    limits: Tensor

    def give(self, bench: Workbench, codes: Tensor, scale: Tensor) -> None:
        """Let the unit have other codes, (O, n), and scales, (O,)."""
        bench.model.give_weights(self.unit, codes.view(bench.graph.weight_shape(self.unit)), scale, self.limits)


def quantized_weights(bench: Workbench) -> Iterator[QuantizedWeights]:
    """Yield the weights of every unit whose codes have equal steps, in the order of the network."""
    for name, node in bench.graph.units.items():
        unit = bench.model.unit(name)
        if not isinstance(unit.quantizer, MinMaxWeight | GivenWeight):
            continue
        codes, scale = unit.quantizer.codes(unit.weight)
        given = isinstance(unit.quantizer, GivenWeight)
        limits = unit.quantizer.limits if given else torch.full_like(scale, weight_limit(unit.quantizer.bits))
        real = bench.graph.tensors[node.op.weight]  # type: ignore[attr-defined]
        yield QuantizedWeights(name, real.float().flatten(1), codes.flatten(1), scale, limits)
