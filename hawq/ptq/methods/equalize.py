"""`equalize`: cross-layer equalization (1906.04721, section 4.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hawq.graph.ir import FloatGraph
from hawq.ptq.gaussians import Moments
from hawq.ptq.pairs import Pair, find_pairs, input_range, output_range, scale_inputs, scale_outputs
from hawq.ptq.registry import Stage, register_method
from hawq.ptq.workbench import Workbench

__all__ = ["equalized"]

_LIMIT = 1e8
_DONE, _SAME = 2e-7, 1e-9
_PATIENCE = 20


@register_method("equalize", Stage.FLOAT)
def _equalize(bench: Workbench) -> None:
    """Move scales between units that follow each other, until their channels have equal ranges."""
    pairs = find_pairs(bench.graph)
    bench.graph, bench.moments = equalized(bench.graph, bench.moments, pairs)
    bench.notes.append(f"equalized {len(pairs)} pairs of units")


def equalized(
    graph: FloatGraph, moments: Mapping[str, Moments], pairs: Sequence[Pair]
) -> tuple[FloatGraph, dict[str, Moments]]:
    """Return the graph with equal ranges, and the moments of its units.

    For channel i between a pair, r1 the range of output i of the first, r2 of input i of the second: t = sqrt(r2 / r1)
    multiplies what the first puts out (weights, bias, moments) and divides what the second multiplies, so that both
    ranges become sqrt(r1 r2). Sweeps go on until sum over units of mean |W - W_before| <= 2e-7, or until that sum
    stays the same for 20 sweeps. The arithmetic is in float64.

    Args:
        graph: batch norms folded.
        moments: of its units.
        pairs: of `find_pairs`.
    """
    weights: dict[str, Tensor] = {}
    total: dict[str, Tensor] = {}
    for pair in pairs:
        for name in (pair.first, pair.second):
            weights[name] = graph.tensors[graph.unit(name).weight].double()
        total[pair.first] = torch.ones(len(weights[pair.first]), dtype=torch.float64)
    last, same = float("inf"), 0
    while pairs and same < _PATIENCE:
        before = dict(weights)
        for pair in pairs:
            total[pair.first] = total[pair.first] * _level(graph, weights, pair)
        change = sum(float((weights[name] - before[name]).abs().mean()) for name in weights)
        if change <= _DONE:
            break
        same = same + 1 if abs(change - last) <= _SAME else 0
        last = change
    tensors = dict(graph.tensors)
    for name, weight in weights.items():
        tensors[graph.unit(name).weight] = weight.float()
    for name, factor in total.items():
        for tensor in (graph.unit(name).bias, graph.unit(name).limit):
            if tensor is not None:
                tensors[tensor] = (tensors[tensor].double() * factor).float()
    scaled = {
        name: Moments((m.mean.double() * total[name]).float(), (m.std.double() * total[name]).float())
        if name in total else m
        for name, m in moments.items()
    }  # fmt: skip
    return replace(graph, tensors=tensors), scaled


def _level(graph: FloatGraph, weights: dict[str, Tensor], pair: Pair) -> Tensor:
    """Equalize one pair in place and return its scales, (C,); a dead channel keeps its own."""
    groups = getattr(graph.unit(pair.second), "groups", 1)
    first, second = weights[pair.first], weights[pair.second]
    own, next_ = output_range(first), input_range(second, groups, pair.positions)
    alive = (own > 0) & (next_ > 0)
    scale = torch.where(alive, (next_ / own).sqrt(), torch.ones_like(own)).clamp(1 / _LIMIT, _LIMIT)
    weights[pair.first] = scale_outputs(first, scale)
    weights[pair.second] = scale_inputs(second, groups, 1 / scale, pair.positions)
    return scale
