"""Rewrite a float graph before it is quantized, in ways that a checkpoint can name and repeat."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from torch import Tensor

from hawq.errors import HawqError
from hawq.graph.ir import FloatGraph
from hawq.qat.fold import folded_weight

__all__ = ["REWRITES", "bias_name", "folded_graph", "register_rewrite", "rewrite", "weight_name"]

_Rewrite = Callable[[FloatGraph], FloatGraph]
REWRITES: dict[str, _Rewrite] = {}
"""Functions by name. What they do to nodes depends on nothing but the nodes."""


def register_rewrite(name: str) -> Callable[[_Rewrite], _Rewrite]:
    """Register a function under the name that `FloatGraph.rewrites` and checkpoints keep; it is noted in its result."""

    def register(function: _Rewrite) -> _Rewrite:
        def noted(graph: FloatGraph) -> FloatGraph:
            return replace(function(graph), rewrites=(*graph.rewrites, name))

        noted.__name__, noted.__doc__ = function.__name__, function.__doc__
        REWRITES[name] = noted
        return noted

    return register


def rewrite(graph: FloatGraph, names: Iterable[str]) -> FloatGraph:
    """Return the graph after the named rewrites, in their order.

    Raises:
        HawqError: no such rewrite.
    """
    for name in names:
        if name not in REWRITES:
            raise HawqError(f"unknown rewrite {name!r} of a network; known: {', '.join(sorted(REWRITES))}")
        graph = REWRITES[name](graph)
    return graph


def weight_name(unit: str) -> str:
    """Return the name a unit's folded weight has among the tensors of the folded graph."""
    return f"{unit}/weight"


def bias_name(unit: str) -> str:
    """Return the name a unit's folded bias has among the tensors of the folded graph."""
    return f"{unit}/bias"


@register_rewrite("folded")
def folded_graph(graph: FloatGraph) -> FloatGraph:
    """Return a graph with the same outputs whose units have a weight and a bias of their own and no batch norm.

    Tensors are detached. A batch norm with no convolution in front stays as it is.
    """
    nodes = dict(graph.nodes)
    tensors: dict[str, Tensor] = {name: tensor.detach() for name, tensor in graph.tensors.items()}
    for name, node in graph.units.items():
        weight, bias = folded_weight(graph, name)
        tensors[weight_name(name)], tensors[bias_name(name)] = weight.detach(), bias.detach()
        op = replace(graph.unit(name), weight=weight_name(name), bias=bias_name(name), norm=None)
        nodes[name] = replace(node, op=op)
    return replace(graph, nodes=nodes, tensors=tensors)
