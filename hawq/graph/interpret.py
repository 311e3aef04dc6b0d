"""Run the canonical graph in float: the reference that sensitivities, calibration and tests compare with."""

from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from hawq.graph import ir
from hawq.graph.functional import clamp, convolve, pointwise

__all__ = ["UnitFunction", "resume_float", "run_float", "run_node", "run_unit"]

UnitFunction = Callable[[ir.Node, Tensor], Tensor]
"""Compute what a unit makes of its input, before its clamp."""


def run_float(graph: ir.FloatGraph, image: Tensor, unit: UnitFunction | None = None) -> dict[str, Tensor]:
    """Return every tensor of the graph by name, for a batch of images.

    The logits, `result[graph.output]`, equal the model's up to float rounding: spatial means are summed in another
    order, everything else is computed by the same kernels. Batch norms use their running statistics. Gradients flow
    to the graph's tensors unless the caller turns them off.

    Args:
        graph: as `hawq.graph.trace.trace` returns it.
        image: (N, C, H, W), on the device and of the type of the graph's tensors.
        unit: computes the units in place of `run_unit`.
    """
    found: dict[str, Tensor] = {}
    for node in graph.nodes.values():
        inputs = [found[name] for name in node.inputs] or [image]
        found[node.name] = run_node(node, inputs, graph, unit)
    return found


def resume_float(graph: ir.FloatGraph, known: Mapping[str, Tensor], changed: Mapping[str, Tensor]) -> Tensor:
    """Return the logits when some tensors are replaced; only what depends on them is computed again.

    Args:
        graph: the network.
        known: every tensor by name, as `run_float` returns them.
        changed: name -> the tensor that takes its place.
    """
    found = dict(changed)
    for node in graph.nodes.values():
        if node.name not in found and any(name in found for name in node.inputs):
            found[node.name] = run_node(node, [found.get(name, known[name]) for name in node.inputs], graph)
    return found.get(graph.output, known[graph.output])


def run_unit(graph: ir.FloatGraph, node: ir.Node, value: Tensor) -> Tensor:
    """Return what a unit makes of its input, (N, ...), batch norm included, before its clamp."""
    match node.op:
        case ir.Conv2d() as op:
            result = convolve(value, graph.tensors[op.weight], _tensor(graph, op.bias), op)
            return _normalise(graph, op.norm, result)
        case ir.Linear() as op:
            return _normalise(graph, op.norm, F.linear(value, graph.tensors[op.weight], _tensor(graph, op.bias)))
    raise TypeError(f"{node.name} is no unit")


def run_node(node: ir.Node, inputs: Sequence[Tensor], graph: ir.FloatGraph, unit: UnitFunction | None = None) -> Tensor:
    """Return what a node makes of its inputs; the image for the Input."""
    match node.op:
        case ir.Input():
            return inputs[0]
        case ir.Conv2d() | ir.Linear() as op:
            value = unit(node, inputs[0]) if unit else run_unit(graph, node, inputs[0])
            return clamp(value, op.clamp, _tensor(graph, op.limit))
        case ir.Norm() as op:
            return clamp(_normalise(graph, op.norm, inputs[0]), op.clamp)
        case op:
            return pointwise(op, inputs)


def _tensor(graph: ir.FloatGraph, name: str | None) -> Tensor | None:
    return None if name is None else graph.tensors[name]


def _normalise(graph: ir.FloatGraph, norm: ir.BatchNorm | None, value: Tensor) -> Tensor:
    if norm is None:
        return value
    mean, var = graph.tensors[norm.mean], graph.tensors[norm.var]
    return F.batch_norm(value, mean, var, _tensor(graph, norm.weight), _tensor(graph, norm.bias), eps=norm.eps)
