"""Fold the batch norms of a float graph, so that its tensors are the numbers that get quantized."""

from dataclasses import replace

from torch import Tensor

from hawq.graph.ir import Conv2d, FloatGraph, Linear
from hawq.qat.fold import folded_weight

__all__ = ["bias_name", "folded_graph", "weight_name"]


def weight_name(unit: str) -> str:
    """Return the name a unit's folded weight has among the tensors of the folded graph."""
    return f"{unit}/weight"


def bias_name(unit: str) -> str:
    """Return the name a unit's folded bias has among the tensors of the folded graph."""
    return f"{unit}/bias"


def folded_graph(graph: FloatGraph) -> FloatGraph:
    """Return a graph with the same outputs whose units have a weight and a bias of their own and no batch norm.

    Tensors are detached. A batch norm with no convolution in front stays as it is.
    """
    nodes = dict(graph.nodes)
    tensors: dict[str, Tensor] = {name: tensor.detach() for name, tensor in graph.tensors.items()}
    for name, node in graph.units.items():
        weight, bias = folded_weight(graph, name)
        tensors[weight_name(name)], tensors[bias_name(name)] = weight.detach(), bias.detach()
        if isinstance(node.op, Conv2d | Linear):
            op = replace(node.op, weight=weight_name(name), bias=bias_name(name), norm=None)
            nodes[name] = replace(node, op=op)
    return FloatGraph(nodes, graph.output, tensors)
