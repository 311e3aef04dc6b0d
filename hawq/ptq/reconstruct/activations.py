"""Walk through a network block by block with all images at once, keeping only the tensors that are still read."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from hawq.graph.interpret import run_node
from hawq.graph.ir import FloatGraph, Input
from hawq.ptq.reconstruct.blocks import Block
from hawq.ptq.reconstruct.storage import Storage
from hawq.qat.model import QuantizedModel

__all__ = ["Activations", "float_activations", "quantized_activations", "run_block"]

_Run = Callable[[Block, Mapping[str, Tensor]], dict[str, Tensor]]
"""Computes the results of a block from its inputs, or from the image under the name of the Input."""

_PIECE = 32
"""Images that are computed at once."""


class Activations:
    """The tensors of one network that later blocks read, for all images.

    Args:
        images: float32, (N, C, H, W).
        run: the network.
        storage: for the tensors.

    Attributes:
        values: by name, float32, (N, ...).
    """

    def __init__(self, images: Tensor, run: _Run, storage: Storage) -> None:
        self.values: dict[str, Tensor] = {}
        self._images, self._run, self._storage = images, run, storage
        self._wanted: set[str] = set()

    @torch.no_grad()
    def advance(self, block: Block) -> None:
        """Compute the results of a block."""
        for start in range(0, len(self._images), _PIECE):
            piece = slice(start, start + _PIECE)
            values = {name: self.values[name][piece] for name in block.inputs}
            if isinstance(block.nodes[0].op, Input):
                values[block.nodes[0].name] = self._images[piece]
            for name, result in self._run(block, values).items():
                if not start:
                    self.values[name] = self._storage.lend((len(self._images), *result.shape[1:]))
                self.values[name][piece] = result

    def forget(self, names: Iterable[str]) -> None:
        """Drop tensors."""
        for name in names:
            self._storage.take_back(self.values.pop(name))


def float_activations(graph: FloatGraph, images: Tensor, storage: Storage) -> Activations:
    """Return those of the float network."""

    def run(block: Block, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = dict(given)
        for node in block.nodes:
            values[node.name] = run_node(node, [values[name] for name in node.inputs or (node.name,)], graph)
        return {name: values[name] for name in block.results}

    return Activations(images, run, storage)


def quantized_activations(model: QuantizedModel, images: Tensor, storage: Storage) -> Activations:
    """Return those of the quantized network as it is when a block is advanced."""
    return Activations(images, lambda block, values: run_block(model, block, values), storage)


def run_block(model: QuantizedModel, block: Block, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the results of a block of a quantized network, computed by fake quantization, each not yet quantized.

    A tensor is quantized by the blocks that read it. So its range is learned by what it does to the output of the first
    of them, and is no part of the error of the block that puts it out.

    Args:
        model: the network.
        block: of its graph.
        given: the block's inputs, not yet quantized; or the image, as the value of the Input.
    """
    image = given.get(model.graph.input.name, torch.empty(0))
    values = {name: model.keep(name, given[name]) for name in block.inputs}
    results, reads = {}, dict[str, Tensor]()
    for node in block.nodes:
        results[node.name] = model.compute(node, image, values, reads)
        values[node.name] = model.keep(node.name, results[node.name])
    return {name: results[name] for name in block.results}
