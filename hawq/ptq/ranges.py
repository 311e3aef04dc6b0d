"""Tell the ranges of activations without images, from what batch norms remember (1906.04721, section 5)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hawq.errors import UsageError
from hawq.graph import ir
from hawq.ptq.gaussians import Moments, Spread, follow
from hawq.qat.model import QuantizedModel
from hawq.quantizers.minmax import MinMaxActivation

__all__ = ["expected_ranges", "set_ranges"]

_DEVIATIONS = 6


def expected_ranges(
    graph: ir.FloatGraph, moments: Mapping[str, Moments], image_range: tuple[float, float]
) -> dict[str, tuple[float, float]]:
    """Return where the values of every tensor are expected: mean -+ 6 deviations over its channels, cut by its clamp.

    A concatenation reaches as far as its parts; pools and reshapes reach as far as their input.

    Args:
        graph: batch norms folded.
        moments: of units before their clamp.
        image_range: lowest and highest value of an image.
    """
    spreads, found = follow(graph, moments), {}
    for node in graph.nodes.values():
        spread = spreads[node.name]
        match node.op:
            case ir.Input():
                low, high = (torch.tensor([end]) for end in image_range)
            case ir.Conv2d() | ir.Linear() | ir.Norm() | ir.Add():
                width = _DEVIATIONS * spread.before.std
                low, high = spread.before.mean - width, spread.before.mean + width
            case _:
                low, high = (torch.tensor(ends) for ends in zip(*(found[name] for name in node.inputs), strict=True))
        found[node.name] = (float(_cut(low, spread).min()), float(_cut(high, spread).max()))
    return found


def _cut(values: Tensor, spread: Spread) -> Tensor:
    """Return values of channels after the clamp."""
    if spread.lo is not None:
        values = values.clamp(min=spread.lo)
    return values if spread.hi is None else values.minimum(torch.as_tensor(spread.hi))


def set_ranges(model: QuantizedModel, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Give every activation quantizer the range of its tensor.

    Args:
        model: whose activations have min-max quantizers.
        ranges: lowest and highest value by tensor.

    Raises:
        UsageError: an activation's quantizer finds its range by another rule.
    """
    for root in model.plan.stored:
        for quantizer in {model.stored_quantizer(root), model.input_quantizer(root)}:
            if type(quantizer) is not MinMaxActivation:
                raise UsageError(
                    f"{root}: the rule for its range needs images; without them use minmax, or give --data DIR or "
                    "--data distilled"
                )
            quantizer.set_range(*ranges[root])
