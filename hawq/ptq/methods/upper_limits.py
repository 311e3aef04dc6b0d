"""`limits`, `relu`: let scales move through activations that end at 6 (1906.04721, section 5.1, replaces them)."""

from dataclasses import replace

import torch

from hawq.graph.interpret import run_float
from hawq.graph.ir import Clamp, FloatGraph
from hawq.ptq.registry import Stage, register_method
from hawq.ptq.workbench import Workbench
from hawq.qat.rewrites import register_rewrite

__all__ = ["unbounded"]


@register_rewrite("unbounded")
def unbounded(graph: FloatGraph) -> FloatGraph:
    """Return a graph whose clamps from 0 have no upper limit."""
    nodes = {}
    for name, node in graph.nodes.items():
        clamp = getattr(node.op, "clamp", None)
        if clamp is not None and clamp.lo == 0:
            node = replace(node, op=replace(node.op, clamp=Clamp(0.0, None)))  # type: ignore[call-arg]
        nodes[name] = node
    return replace(graph, nodes=nodes)


@register_rewrite("limited")
def limited(graph: FloatGraph) -> FloatGraph:
    """Return the same network with the upper limits of units' activations as tensors, a number for each channel."""
    nodes, tensors = dict(graph.nodes), dict(graph.tensors)
    for name, node in graph.units.items():
        op = graph.unit(name)
        if op.clamp is not None and op.clamp.hi is not None and op.limit is None:
            limit = f"{name}/limit"
            tensors[limit] = torch.full((node.shape[0],), op.clamp.hi)
            nodes[name] = replace(node, op=replace(op, clamp=Clamp(op.clamp.lo, None), limit=limit))
    return replace(graph, nodes=nodes, tensors=tensors)


@register_method("limits", Stage.FLOAT)
def _limits(bench: Workbench) -> None:
    """Give every channel of a ReLU6 an upper limit of its own, so that scales can move through it."""
    bench.graph = limited(bench.graph)


@register_method("relu", Stage.FLOAT)
def _relu(bench: Workbench) -> None:
    """Replace ReLU6 by ReLU, so that scales can move between the units around it."""
    clamps = {name: getattr(node.op, "clamp", None) for name, node in bench.graph.nodes.items()}
    bounded = {name: c.hi for name, c in clamps.items() if c is not None and c.lo == 0 and c.hi is not None}
    bench.graph = unbounded(bench.graph)
    if not bounded:
        bench.notes.append("no activation has an upper limit: `relu` changes nothing")
    elif bench.images is not None:
        above, values = 0, 0
        for name, value in run_float(bench.graph, next(iter(bench.images()))).items():
            if name in bounded:
                above += int((value > bounded[name]).sum())
                values += value.numel()
        share = 100 * above / values
        bench.notes.append(f"{len(bounded)} upper limits removed; {share:.3f}% of the values behind them exceed theirs")
