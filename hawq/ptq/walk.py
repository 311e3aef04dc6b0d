"""Walk through a network, exact and quantized side by side, all calibration images at once and node by node."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hawq.graph.interpret import run_node, run_unit
from hawq.graph.ir import Node
from hawq.qat.model import QuantizedModel

__all__ = ["Pace", "walk"]

_PIECE = 8
"""Images that are computed at once: what a single node needs beside the tensors that are kept stays small."""


@dataclass
class Pace:
    """What is known of a few images so far.

    Attributes:
        image: float32, (N, C, H, W).
        exact: tensors of the float network that are still needed, by name.
        quantized: the same of the simulated one.
        reads: what its units read, by tensor.
        output: what the present unit puts out in the float network, before its activation; empty once it is computed.
    """

    image: Tensor
    exact: dict[str, Tensor] = field(default_factory=dict)
    quantized: dict[str, Tensor] = field(default_factory=dict)
    reads: dict[str, Tensor] = field(default_factory=dict)
    output: Tensor = field(default_factory=lambda: torch.empty(0))


def walk(model: QuantizedModel, batches: Iterable[Tensor]) -> Iterator[tuple[Node, list[Pace]]]:
    """Yield every node before it is computed; what is done to its unit then counts for all that follows.

    Only tensors that a later node reads are kept: the memory is that of the widest place of the network, twice, for all
    images.

    Args:
        model: ranges found; its graph is the float network.
        batches: of images.
    """
    # EfficientNet-Lite0's convolutions take less than half the time on a CPU in this order
    pieces = (piece for batch in batches for piece in batch.split(_PIECE))
    paces = [Pace(piece.contiguous(memory_format=torch.channels_last)) for piece in pieces]
    dies_after = model.graph.dies_after()
    for node in model.graph.nodes.values():
        if node.name in model.graph.units:
            for pace in paces:
                pace.output = run_unit(model.graph, node, pace.exact[node.inputs[0]])
        yield node, paces
        for pace in paces:
            inputs = [pace.exact[name] for name in node.inputs] or [pace.image]
            pace.exact[node.name] = run_node(node, inputs, model.graph, lambda *_, pace=pace: pace.output)
            pace.output = torch.empty(0)
            model.advance(node, pace.image, pace.quantized, pace.reads)
        for name in dies_after[node.name]:
            for pace in paces:
                for kept in (pace.exact, pace.quantized, pace.reads):
                    kept.pop(name, None)
