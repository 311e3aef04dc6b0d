"""Fuse batch norms and clamps into the nodes before them, and drop what the logits do not need."""

from collections import Counter
from dataclasses import replace

from hawq.graph.ir import Add, Concat, Conv2d, FloatGraph, Linear, Mul, Node, Norm, Op, Relu

__all__ = ["drop_dead", "flatten_concats", "fuse"]


def drop_dead(graph: FloatGraph) -> FloatGraph:
    """Drop the nodes from which no output can be reached; the input stays."""
    alive = {*graph.outputs.values(), graph.input.name}
    for node in reversed(list(graph.nodes.values())):
        if node.name in alive:
            alive.update(node.inputs)
    return replace(graph, nodes={name: node for name, node in graph.nodes.items() if name in alive})


def fuse(graph: FloatGraph) -> FloatGraph:
    """Fuse each batch norm into its convolution or linear layer, and each clamp into the node it follows.

    Only where nothing else reads the tensor in between.
    """
    reads = _reads(graph)
    nodes: dict[str, Node] = {}
    fused: dict[str, str] = {}
    for node in graph.nodes.values():
        inputs = tuple(fused.get(name, name) for name in node.inputs)
        op = _fused(nodes[inputs[0]].op, node.op) if inputs and reads[node.inputs[0]] == 1 else None
        if op is None:
            nodes[node.name] = replace(node, inputs=inputs)
        else:
            nodes[inputs[0]] = replace(nodes[inputs[0]], op=op)
            fused[node.name] = inputs[0]
    outputs = {name: fused.get(node, node) for name, node in graph.outputs.items()}
    return replace(graph, nodes=nodes, outputs=outputs)


def flatten_concats(graph: FloatGraph) -> FloatGraph:
    """Replace a concatenation that only another one reads by its parts."""
    reads = _reads(graph)
    nodes: dict[str, Node] = {}
    for node in graph.nodes.values():
        if isinstance(node.op, Concat):
            parts = (
                nodes[name].inputs if isinstance(nodes[name].op, Concat) and reads[name] == 1 else (name,)
                for name in node.inputs
            )
            node = replace(node, inputs=tuple(name for part in parts for name in part))
        nodes[node.name] = node
    return drop_dead(replace(graph, nodes=nodes))


def _reads(graph: FloatGraph) -> Counter[str]:
    """Count the readings of every tensor; who gets an output reads it, too."""
    inner = (name for node in graph.nodes.values() for name in node.inputs)
    return Counter([*inner, *graph.outputs.values()])


def _fused(before: Op, op: Op) -> Op | None:
    """Return `before` with `op` inside it, or None."""
    if isinstance(op, Norm) and isinstance(before, Conv2d | Linear) and before.norm is None and before.clamp is None:
        return replace(before, norm=op.norm, clamp=op.clamp)
    if isinstance(op, Relu) and isinstance(before, Conv2d | Linear | Add | Mul | Norm) and before.clamp is None:
        return replace(before, clamp=op.clamp)
    return None
