"""Part a network into pieces that are reconstructed one after another."""

from collections.abc import Sequence
from dataclasses import dataclass

from hawq.graph.ir import Conv2d, FloatGraph, Linear, Node

__all__ = ["Block", "blocks", "nodes_alone"]

_MOST_UNITS = 10
"""Of a block; what two cuts enclose is left apart if it has more (the dense blocks of DenseNet)."""


@dataclass(frozen=True)
class Block:
    """Some nodes of a network, in its order.

    Attributes:
        nodes: not empty.
        inputs: tensors of other nodes that they read.
        results: those of their tensors that other nodes read; the last one's, whatever reads it.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    results: tuple[str, ...]

    @property
    def output(self) -> str:
        """The tensor that is reconstructed: the last one."""
        return self.nodes[-1].name

    @property
    def units(self) -> tuple[str, ...]:
        """The units among the nodes."""
        return tuple(node.name for node in self.nodes if isinstance(node.op, Conv2d | Linear))


def nodes_alone(graph: FloatGraph) -> list[Block]:
    """Return every node as a block of its own."""
    return [_block(graph, [node]) for node in graph.nodes.values()]


def blocks(graph: FloatGraph) -> list[Block]:
    """Return the blocks of a network (2102.05426, section 3.2).

    A network is cut wherever a single tensor carries all that comes after: a residual block reaches from the tensor
    that branches to the Add, an inception module to its concatenation. Of what is left, a unit each, a depthwise
    convolution is joined with the unit in front, if that expands for it alone, and with the one behind: an inverted
    residual without its skip connection. Pools go with what comes after.
    """
    first, *pieces = _pieces(graph)
    joined = [first]
    for piece in pieces:
        if len(joined) > 1 and (_is_idle(joined[-1]) or _continues(joined[-1], piece)):
            joined[-1] += piece
        else:
            joined.append(piece)
    return [_block(graph, nodes) for nodes in joined]


def _pieces(graph: FloatGraph) -> list[list[Node]]:
    """Return the nodes between cuts."""
    last_read = {name: place for place, node in enumerate(graph.nodes.values()) for name in node.inputs}
    found: list[list[Node]] = []
    piece: list[Node] = []
    live: set[str] = set()
    for place, node in enumerate(graph.nodes.values()):
        piece.append(node)
        live = {name for name in (*live, node.name) if last_read.get(name, -1) > place}
        if len(live) <= 1:
            units = sum(isinstance(each.op, Conv2d | Linear) for each in piece)
            found += [piece] if units <= _MOST_UNITS else [[each] for each in piece]
            piece = []
    return found


def _continues(chain: Sequence[Node], piece: Sequence[Node]) -> bool:
    """Tell whether a piece is one unit that goes with the units of the chain before it."""
    if len(piece) > 1 or piece[0].inputs != (chain[-1].name,):
        return False
    if not all(isinstance(node.op, Conv2d | Linear) for node in (*chain, *piece)):
        return False
    return _is_depthwise(chain[-1]) or (_is_depthwise(piece[0]) and len(chain) == 1)


def _is_idle(piece: Sequence[Node]) -> bool:
    return not any(isinstance(node.op, Conv2d | Linear) for node in piece)


def _is_depthwise(node: Node) -> bool:
    return isinstance(node.op, Conv2d) and node.op.groups == node.shape[0] > 1


def _block(graph: FloatGraph, nodes: Sequence[Node]) -> Block:
    inside = {node.name for node in nodes}
    inputs = dict.fromkeys(name for node in nodes for name in node.inputs if name not in inside)
    read = {name for node in graph.nodes.values() if node.name not in inside for name in node.inputs}
    results = [node.name for node in nodes if node.name in read or node is nodes[-1]]
    return Block(tuple(nodes), tuple(inputs), tuple(results))
