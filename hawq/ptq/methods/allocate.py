"""`allocate-bits`, `allocate-bins`: let channels of weights have levels as they need them (ACIQ, 1810.05723)."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from hawq.errors import UsageError
from hawq.graph.structure import pinned_units
from hawq.ptq.allocation import allocate_bins, allocate_bits, entropy
from hawq.ptq.registry import Stage, register_method
from hawq.ptq.workbench import Workbench
from hawq.quantizers.minmax import MinMaxWeight
from hawq.quantizers.weight import channel_floor, weight_limit, weight_scale

__all__: list[str] = []


@register_method("allocate-bits", Stage.MODEL)
def _allocate_bits(bench: Workbench) -> None:
    """Give channels of weights 0 or 2 to 8 bits, on average those of the scheme or --mean-bits (ACIQ)."""
    found = []
    for name, rule, weight, mean in _served(bench):
        bits = allocate_bits(_spread(weight), mean)
        codes, scale, limits = torch.zeros_like(weight), weight_scale(weight, 8), torch.zeros(len(weight))
        own = replace(rule.options, weight_group=1)
        for width in filter(None, bits.unique().tolist()):
            rows = bits == width
            codes[rows], scale[rows] = type(rule)(width, weight[rows], own).codes(weight[rows])
            limits[rows] = weight_limit(width)
        bench.model.give_weights(name, codes, channel_floor(scale), limits)
        found.append((float(bits.double().mean()), weight.numel()))
    bench.notes.append(f"allocate-bits: {_mean(found):.2f} bits a weight on average, units pinned to 8 bits aside")


@register_method("allocate-bins", Stage.MODEL)
def _allocate_bins(bench: Workbench) -> None:
    """Give channels of weights any number of bins, and tell the rate a code of variable length would reach (ACIQ)."""
    found = []
    for name, _, weight, bits in _served(bench):
        rows = weight.flatten(1)
        bins = allocate_bins(_spread(weight), bits)
        scale, limits = 2 * channel_floor(rows.abs().amax(1)) / bins, (bins // 2).float()
        codes = torch.round(rows / scale[:, None])
        codes = torch.maximum(torch.minimum(codes, limits[:, None]), -limits[:, None])
        bench.model.give_weights(name, codes.view_as(weight), scale, limits)
        found.append((entropy(codes), weight.numel()))
    bench.notes.append(
        f"allocate-bins: a code of variable length would take {_mean(found):.2f} bits a weight (the entropy), units "
        "pinned to 8 bits aside"
    )


def _served(bench: Workbench) -> Iterator[tuple[str, MinMaxWeight, Tensor, float]]:
    """Yield name, quantizer, float weights and wanted mean bits of the units whose channels share levels out.

    Raises:
        UsageError: weights have no equal steps, or were changed already.
    """
    pinned = pinned_units(bench.graph)
    for name, node in bench.graph.units.items():
        rule = bench.model.unit(name).quantizer
        if name in pinned:
            continue
        if not isinstance(rule, MinMaxWeight):
            raise UsageError(
                f"{name} has {type(rule).__name__}; bits and bins are shared out among weights of a range rule: choose "
                "one (minmax, mse, ...), and name allocate-bits or allocate-bins before what changes weights"
            )
        weight = bench.graph.tensors[node.op.weight].float()  # type: ignore[attr-defined]
        yield name, rule, weight, bench.settings.mean_bits or bench.bits.units[name].weight


def _spread(weight: Tensor) -> Tensor:
    """Return the root mean square of each output channel, (O,): its deviation from the middle of the grid."""
    return weight.flatten(1).square().mean(1).sqrt()


def _mean(found: list[tuple[float, int]]) -> float:
    return sum(value * count for value, count in found) / max(sum(count for _, count in found), 1)
