"""Fold explicit zero padding (`F.pad`, `nn.ZeroPad2d`, TensorFlow's SAME) into the window that reads it."""

from dataclasses import dataclass, replace

from hawq.errors import HawqError
from hawq.graph.ir import AvgPool2d, Conv2d, FloatGraph, MaxPool2d, Node, Op
from hawq.graph.signs import non_negative
from hawq.graph.site import Site
from hawq.integer.geometry import Padding

__all__ = ["Pad", "fold_padding"]


@dataclass(frozen=True)
class Pad(Op):
    """Surround the map with `value`. Stands between tracing and folding only: no finished graph holds one."""

    padding: Padding
    value: float
    site: Site


def fold_padding(graph: FloatGraph) -> FloatGraph:
    """Move every Pad into the windows that read it.

    A convolution and an average pool take zeros (the pool's divisors are already fixed). A max pool takes zeros only
    behind a non-negative tensor, where they win no window that holds a real value, and minus infinity always.

    Raises:
        HawqError: another op reads the padded tensor.
    """
    safe = non_negative(graph)
    nodes: dict[str, Node] = {}
    for node in graph.nodes.values():
        padded = node
        while padded.inputs and isinstance(pad := graph.nodes[padded.inputs[0]].op, Pad):
            source = graph.nodes[graph.nodes[padded.inputs[0]].inputs[0]]
            op = _absorb(padded, pad, source, source.name in safe)
            padded = replace(padded, op=op, inputs=(source.name, *padded.inputs[1:]))
        stray = [name for name in padded.inputs if isinstance(graph.nodes[name].op, Pad)]
        if stray:
            raise HawqError(_refusal(graph.nodes[stray[0]].op.site, padded, "is no window"))  # type: ignore[attr-defined]
        nodes[node.name] = padded
    for name in graph.outputs.values():
        if isinstance(pad := graph.nodes[name].op, Pad):
            raise HawqError(f"{pad.site}: the model returns a padded tensor; crop or remove the padding")
    return replace(graph, nodes=nodes)


def _absorb(node: Node, pad: Pad, source: Node, safe: bool) -> Op:
    """Return the op of `node` with `pad` inside it, or an equal Pad of more."""
    op = node.op
    if isinstance(op, Conv2d | AvgPool2d) and pad.value == 0:
        return replace(op, padding=_plus(op.padding, pad.padding))
    if isinstance(op, Pad) and op.value == pad.value:
        return replace(op, padding=_plus(op.padding, pad.padding))
    if isinstance(op, MaxPool2d):
        if pad.value == 0 and not safe:
            raise HawqError(_refusal(pad.site, node, "may read negative values, over which the zeros would win"))
        pooled = replace(op, padding=_plus(op.padding, pad.padding))
        if pad.value == 0 and not _sees_the_map(pooled, node, source):
            raise HawqError(_refusal(pad.site, node, "has windows that hold nothing but padding"))
        return pooled
    reason = f"takes no padding of {pad.value}" if isinstance(op, Conv2d | AvgPool2d | Pad) else "is no window"
    raise HawqError(_refusal(pad.site, node, reason))


def _plus(first: Padding, second: Padding) -> Padding:
    top, bottom, left, right = (a + b for a, b in zip(first, second, strict=True))
    return top, bottom, left, right


def _sees_the_map(op: MaxPool2d, node: Node, source: Node) -> bool:
    """Tell whether every window holds a real value."""
    return all(
        any(0 <= out * op.stride[axis] - op.padding[2 * axis] + tap * op.dilation[axis] < source.shape[1 + axis]
            for tap in range(op.kernel[axis]))
        for axis in (0, 1) for out in range(node.shape[1 + axis])
    )  # fmt: skip


def _refusal(site: Site, reader: Node, reason: str) -> str:
    return (
        f"{site}: this padding cannot be folded into {reader.name!r} ({type(reader.op).__name__}), which {reason}; pad "
        "with zeros right in front of a convolution or an average pool (or, behind a ReLU, of a max pool)"
    )
