"""Say what of each block is learned, and keep what was found as tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hawq.graph.structure import pinned_units
from hawq.ptq.reconstruct.blocks import Block
from hawq.qat.model import QuantizedModel
from hawq.quantizers.activation import UniformActivation
from hawq.quantizers.given import GivenWeight
from hawq.schemes import PINNED_BITS

__all__ = ["Subjects", "find_subjects", "found", "give"]


@dataclass(frozen=True)
class Subjects:
    """What of a block is learned.

    Attributes:
        units: whose weights are rounded.
        ranges: tensors whose quantizers are those through which units read them.
    """

    units: tuple[str, ...]
    ranges: tuple[str, ...]


def find_subjects(model: QuantizedModel, blocks: Sequence[Block], *, ranges: bool) -> list[Subjects]:
    """Return the subjects of every block.

    Units are all but those pinned to 8 bits, whose rounding hardly counts. A range is learned by the first block with
    such units that reads the tensor.
    """
    pinned = {unit for unit in pinned_units(model.graph) if model.bits.units[unit].weight == PINNED_BITS.weight}
    known: set[str] = set()
    result = []
    for block in blocks:
        units = tuple(unit for unit in block.units if unit not in pinned)
        roots = [root for root in _roots(model, block) if root not in known] if units and ranges else []
        known.update(roots)
        result.append(Subjects(units, tuple(roots)))
    return result


def _roots(model: QuantizedModel, block: Block) -> list[str]:
    """Return the domains that units of a block read through a quantizer that works inside it and can be learned."""
    plan, known = model.plan, {*block.inputs, *(node.name for node in block.nodes)}
    roots = [plan.domains[source].root for unit in block.units for source in model.graph.nodes[unit].inputs]
    inside = [root for root in dict.fromkeys(roots) if root in plan.read or root in known]
    learnable = [root for root in inside if not plan.domains[root].is_input]
    return [root for root in learnable if isinstance(model.input_quantizer(root), UniformActivation)]


@torch.no_grad()
def found(model: QuantizedModel, subjects: Subjects) -> dict[str, Tensor]:
    """Return what subjects have become, as `give` takes it."""
    tensors: dict[str, Tensor] = {}
    for unit in subjects.units:
        module = model.unit(unit)
        codes, scale = module.quantizer.codes(module.weight)
        assert isinstance(module.quantizer, GivenWeight)
        tensors |= {f"{unit}.codes": codes.to(torch.int8), f"{unit}.weight_scale": scale}
        tensors[f"{unit}.limits"] = module.quantizer.limits
        assert module.bias is not None  # folding gave it one
        tensors[f"{unit}.bias"] = module.bias.detach()
    for root in subjects.ranges:
        quantizer = model.input_quantizer(root)
        assert isinstance(quantizer, UniformActivation)
        tensors |= {f"{root}.scale": quantizer.step(), f"{root}.lowest": quantizer.lowest()}
    return tensors


@torch.no_grad()
def give(model: QuantizedModel, subjects: Subjects, tensors: Mapping[str, Tensor]) -> None:
    """Make subjects what they had become.

    Raises:
        KeyError: tensors of something else.
    """
    for unit in subjects.units:
        scale, limits = tensors[f"{unit}.weight_scale"], tensors[f"{unit}.limits"]
        model.give_weights(unit, tensors[f"{unit}.codes"].float(), scale, limits)
        bias = model.unit(unit).bias
        assert bias is not None
        bias.copy_(tensors[f"{unit}.bias"])
    for root in subjects.ranges:
        model.give_range(root, tensors[f"{root}.scale"], tensors[f"{root}.lowest"])
