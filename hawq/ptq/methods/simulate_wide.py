"""`simulate-16`: 16 bits everywhere, the widest of the naive baselines."""

from dataclasses import replace

from torch import Tensor

from hawq.errors import HawqError, UsageError
from hawq.ptq.registry import Stage, register_method
from hawq.ptq.workbench import Workbench
from hawq.quantizers.activation import UniformActivation
from hawq.quantizers.minmax import MinMaxWeight

__all__ = ["WideWeight"]

_BITS = 16


class WideWeight(MinMaxWeight):
    """Quantize weights as `minmax` does, with more bits than a program's codes have."""

    def codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Refuse to be integers.

        Raises:
            HawqError: always.
        """
        raise HawqError(
            f"weights of {self.bits} bits are a simulation: a program has one byte for a code; leave out simulate-16 "
            "for an integer program"
        )


@register_method("simulate-16", Stage.MODEL)
def _simulate_16(bench: Workbench) -> None:
    """Simulate 16 bits for all weights and activations, over the ranges found; no integer program can be made.

    Raises:
        UsageError: a method has rounded the weights already, or activations have no even steps.
    """
    model = bench.model
    for name in bench.graph.units:
        unit = model.unit(name)
        if unit.quantizer.scales_given:
            raise UsageError("simulate-16 needs the float weights; leave out the methods that round or share bits out")
        unit.quantizer = WideWeight(_BITS, unit.weight, model.options)
    for quantizer in (*model.stored.values(), *model.read.values()):
        if not isinstance(quantizer, UniformActivation):
            raise UsageError("simulate-16 widens uniform activations; leave out the method that makes others")
        quantizer.bits = _BITS
    model.options = replace(model.options, fixed_point=True)
    bench.notes.append("16 bits are simulated in float32: a program's tensors have one byte for a code")
