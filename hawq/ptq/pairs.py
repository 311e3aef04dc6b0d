"""Find pairs of units between which a scale can move, and move it (1906.04721, section 4.1)."""

from dataclasses import dataclass

from torch import Tensor

from hawq.graph.ir import AvgPool2d, Clamp, Conv2d, Flatten, FloatGraph, Linear, MaxPool2d, Node, Relu
from hawq.quantizers.weight import per_channel

__all__ = ["Pair", "find_pairs", "input_range", "output_range", "scale_inputs", "scale_outputs"]

_RELU = Clamp(0.0, None)


@dataclass(frozen=True)
class Pair:
    """Two units, the second of which alone reads what the first puts out.

    All between them, activation included, is positively homogeneous, channel by channel: f(t x) = t f(x) for t > 0.

    Attributes:
        first: unit.
        second: unit.
        positions: inputs of the second that come from one channel of the first; more than 1 behind a Flatten.
    """

    first: str
    second: str
    positions: int = 1


def find_pairs(graph: FloatGraph) -> list[Pair]:
    """Return the pairs of a graph, in its order."""
    found = []
    for name, node in graph.units.items():
        if not _homogeneous(node.op.clamp):  # type: ignore[attr-defined]
            continue
        positions = 1
        while (reader := _only_reader(graph, node.name)) is not None:
            if isinstance(reader.op, Conv2d | Linear):
                found.append(Pair(name, reader.name, positions))
                break
            if not _passes(reader):
                break
            if isinstance(reader.op, Flatten):
                positions *= reader.shape[0] // node.shape[0]
            node = reader
    return found


def _only_reader(graph: FloatGraph, name: str) -> Node | None:
    readers = graph.readers(name)
    return readers[0] if len(readers) == 1 and name not in graph.outputs.values() else None


def _homogeneous(clamp: Clamp | None) -> bool:
    return clamp is None or clamp == _RELU


def _passes(node: Node) -> bool:
    """Tell whether a node without weights keeps channels apart and scales with them."""
    if isinstance(node.op, Relu):
        return _homogeneous(node.op.clamp)
    return isinstance(node.op, AvgPool2d | MaxPool2d | Flatten)


def output_range(weight: Tensor) -> Tensor:
    """Return max |w| of every output channel, (O,), of weights (O, ...)."""
    return weight.flatten(1).abs().amax(1)


def input_range(weight: Tensor, groups: int, positions: int = 1) -> Tensor:
    """Return max |w| of all weights that multiply an input channel, (C,).

    Args:
        weight: (O, I/groups, ...).
        groups: of the convolution; 1 for a linear layer.
        positions: neighbouring inputs that count as one channel.
    """
    return _by_input(weight, groups, positions).abs().amax((1, 3)).reshape(-1)


def scale_outputs(weight: Tensor, factor: Tensor) -> Tensor:
    """Return weights (O, ...) times factors (O,)."""
    return weight * per_channel(factor, weight)


def scale_inputs(weight: Tensor, groups: int, factor: Tensor, positions: int = 1) -> Tensor:
    """Return weights (O, I/groups, ...) times the factors, (C,), of the input channels they multiply."""
    rows = _by_input(weight, groups, positions)
    return (rows * factor.view(rows.shape[0], 1, rows.shape[2], 1)).reshape(weight.shape)


def _by_input(weight: Tensor, groups: int, positions: int) -> Tensor:
    """Return a view (groups, O/groups, channels of a group, weights of a channel) of weights (O, I/groups, ...)."""
    outputs, inputs = weight.shape[:2]
    return weight.reshape(groups, outputs // groups, inputs // positions, positions * weight[0, 0].numel())
