"""`absorb`: move biases that always pass a ReLU to the next unit (1906.04721, section 4.1.3)."""

from dataclasses import replace

from hawq.graph.ir import Clamp
from hawq.ptq.gaussians import Moments, mean_response
from hawq.ptq.pairs import find_pairs
from hawq.ptq.registry import Stage, register_method
from hawq.ptq.workbench import Workbench

__all__: list[str] = []

_DEVIATIONS = 3
_RELU = Clamp(0.0, None)


@register_method("absorb", Stage.FLOAT)
def _absorb(bench: Workbench) -> None:
    """Move what a ReLU always lets pass into the bias behind it, so that activations begin near zero.

    c = max(0, beta - 3 gamma); b1 -= c, b2 += W2 c. Exact for values above c, 99.9% of a normal distribution. Behind a
    convolution that pads, the border would change: such pairs are left alone, as are units that had no batch norm.
    """
    tensors, moments, moved = dict(bench.graph.tensors), dict(bench.moments), 0
    for pair in find_pairs(bench.graph):
        first, second = bench.graph.unit(pair.first), bench.graph.unit(pair.second)
        if pair.first not in moments or first.clamp != _RELU or any(getattr(second, "padding", ())):
            continue
        known = moments[pair.first]
        surplus = (known.mean - _DEVIATIONS * known.std).clamp(min=0)
        if first.limit is not None:
            surplus = surplus.minimum(tensors[first.limit])
            tensors[first.limit] = tensors[first.limit] - surplus
        if first.bias is None or second.bias is None or not bool(surplus.any()):
            continue
        each = surplus.repeat_interleave(pair.positions)
        tensors[first.bias] = tensors[first.bias] - surplus
        added = mean_response(tensors[second.weight], each, getattr(second, "groups", 1))
        tensors[second.bias] = tensors[second.bias] + added
        moments[pair.first] = Moments(known.mean - surplus, known.std)
        moved += int((surplus > 0).sum())
    bench.graph, bench.moments = replace(bench.graph, tensors=tensors), moments
    bench.notes.append(f"absorbed the biases of {moved} channels")
