"""Run the canonical graph in float: the reference that sensitivities, calibration and tests compare with."""

import torch.nn.functional as F
from torch import Tensor

from hawq.graph import ir
from hawq.graph.functional import clamp, convolve, pointwise

__all__ = ["run_float"]


def run_float(graph: ir.FloatGraph, image: Tensor) -> dict[str, Tensor]:
    """Return every tensor of the graph by name, for a batch of images.

    The logits, `result[graph.output]`, equal the model's up to float rounding: spatial means are summed in another
    order, everything else is computed by the same kernels. Batch norms use their running statistics. Gradients flow
    to the graph's tensors unless the caller turns them off.

    Args:
        graph: as `hawq.graph.trace.trace` returns it.
        image: (N, C, H, W), on the device and of the type of the graph's tensors.
    """
    found: dict[str, Tensor] = {}
    for node in graph.nodes.values():
        found[node.name] = _run(node.op, [found[name] for name in node.inputs] or [image], graph)
    return found


def _run(op: ir.Op, inputs: list[Tensor], graph: ir.FloatGraph) -> Tensor:
    match op:
        case ir.Input():
            return inputs[0]
        case ir.Conv2d():
            value = convolve(inputs[0], graph.tensors[op.weight], _tensor(graph, op.bias), op)
            return clamp(_normalise(graph, op.norm, value), op.clamp)
        case ir.Linear():
            value = F.linear(inputs[0], graph.tensors[op.weight], _tensor(graph, op.bias))
            return clamp(_normalise(graph, op.norm, value), op.clamp)
        case ir.Norm():
            return clamp(_normalise(graph, op.norm, inputs[0]), op.clamp)
        case _:
            return pointwise(op, inputs)


def _tensor(graph: ir.FloatGraph, name: str | None) -> Tensor | None:
    return None if name is None else graph.tensors[name]


def _normalise(graph: ir.FloatGraph, norm: ir.BatchNorm | None, value: Tensor) -> Tensor:
    if norm is None:
        return value
    mean, var = graph.tensors[norm.mean], graph.tensors[norm.var]
    return F.batch_norm(value, mean, var, _tensor(graph, norm.weight), _tensor(graph, norm.bias), eps=norm.eps)
