"""Run a float graph with its batch norms folded, as a function of the folded weights."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from hawq.graph import ir
from hawq.graph.functional import clamp, convolve, pointwise
from hawq.qat.fold import folded_weight

__all__ = ["folded_parameters", "logits"]


def folded_parameters(graph: ir.FloatGraph) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights, (O, ...), and biases, (O,), of every unit with its batch norm folded in, detached."""
    folded = {unit: folded_weight(graph, unit) for unit in graph.units}
    return (
        {unit: weight.detach() for unit, (weight, _) in folded.items()},
        {unit: bias.detach() for unit, (_, bias) in folded.items()},
    )


def logits(graph: ir.FloatGraph, weights: Mapping[str, Tensor], biases: Mapping[str, Tensor], image: Tensor) -> Tensor:
    """Return the logits, (N, classes), in evaluation mode.

    Args:
        graph: the network; batch norms of its units are taken as folded.
        weights: unit -> folded weight, (O, ...).
        biases: unit -> folded bias, (O,).
        image: float32, (N, C, H, W).
    """
    values: dict[str, Tensor] = {}
    for node in graph.nodes.values():
        inputs = [values[name] for name in node.inputs]
        values[node.name] = _compute(graph, node, inputs, weights, biases) if inputs else image
    return values[graph.output]


def _compute(
    graph: ir.FloatGraph,
    node: ir.Node,
    inputs: list[Tensor],
    weights: Mapping[str, Tensor],
    biases: Mapping[str, Tensor],
) -> Tensor:
    match node.op:
        case ir.Conv2d() as op:
            return clamp(convolve(inputs[0], weights[node.name], biases[node.name], op), op.clamp)
        case ir.Linear() as op:
            return clamp(F.linear(inputs[0], weights[node.name], biases[node.name]), op.clamp)
        case ir.Norm() as op:
            return clamp(_normalise(graph, op.norm, inputs[0]), op.clamp)
        case op:
            return pointwise(op, inputs)


def _normalise(graph: ir.FloatGraph, norm: ir.BatchNorm, value: Tensor) -> Tensor:
    weight = graph.tensors[norm.weight] if norm.weight else None
    bias = graph.tensors[norm.bias] if norm.bias else None
    return F.batch_norm(value, graph.tensors[norm.mean], graph.tensors[norm.var], weight, bias, eps=norm.eps)
