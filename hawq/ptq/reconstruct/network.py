"""Reconstruct a network block by block, and go on where an interrupted run stopped."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from hawq.errors import HawqError, UsageError
from hawq.files import read_tensors, write_tensors
from hawq.graph.identity import identity, update
from hawq.ptq.reconstruct.activations import float_activations, quantized_activations
from hawq.ptq.reconstruct.blocks import Block
from hawq.ptq.reconstruct.engine import Reconstruction, learn
from hawq.ptq.reconstruct.storage import Storage
from hawq.ptq.reconstruct.subjects import find_subjects, found, give
from hawq.ptq.workbench import Workbench

__all__ = ["reconstruct"]

_HEARD_EVERY = 10


def reconstruct(bench: Workbench, name: str, blocks: Sequence[Block], how: Reconstruction) -> None:
    """Learn all blocks of a network in their order.

    What a block has become is written to a file of the bench's folder at once, under the hash of all that it depends
    on; the same command reads it and ends with the same bytes as one that was not interrupted.

    Args:
        bench: whose model is changed.
        name: of the method.
        blocks: all nodes of the network.
        how: to learn.

    Raises:
        UsageError: there are no images.
    """
    model, images = bench.model, torch.cat([*bench.needed_images()])
    folder = None if bench.folder is None else bench.folder / f"{name}-{_key(bench, images, how)[:16]}"
    storage = Storage(bench.settings.memory, bench.folder)
    floats = float_activations(model.graph, images, storage)
    quantized = quantized_activations(model, images, storage)
    subjects = find_subjects(model, blocks, ranges=how.ranges)
    total, done = sum(bool(each.units) for each in subjects) * how.iterations, 0
    dies_after = model.graph.dies_after()
    for index, (block, each) in enumerate(zip(blocks, subjects, strict=True)):
        floats.advance(block)
        if each.units:
            path = None if folder is None else folder / f"{index:04}.safetensors"
            tensors = _read(path)
            if tensors is None:

                def heard(iteration: int, error: float, block: Block = block, before: int = done) -> None:
                    if iteration % _HEARD_EVERY == 0:
                        bench.progress(
                            name, before + iteration, total, f"{block.output}: error {error:.2f} of nearest rounding"
                        )

                seed = bench.settings.seed * len(blocks) + index
                learn(model, block, each, quantized.values, floats.values, how, seed, heard)
                tensors = found(model, each)
                if path is not None:
                    write_tensors(path, tensors)
            give(model, each, tensors)
            done += how.iterations
            bench.progress(name, done, total, block.output)
        quantized.advance(block)
        over = [n for node in block.nodes for n in dies_after[node.name] if n in floats.values]
        floats.forget(over)
        quantized.forget(over)
    for left in (floats, quantized):
        left.forget([*left.values])


def _read(path: Path | None) -> dict[str, Tensor] | None:
    """Return the tensors of a file; None: there is none, or it is torn."""
    try:
        return None if path is None else read_tensors(path)
    except (UsageError, HawqError):
        return None


def _key(bench: Workbench, images: Tensor, how: Reconstruction) -> str:
    """Return the hash of all that a result depends on."""
    model = bench.model
    facts = (model.bits, asdict(model.options), how, bench.settings.seed)
    digest = hashlib.sha256(identity(model.graph, *facts).encode())
    for tensor in (*model.state_dict().values(), images):
        update(digest, tensor)
    return digest.hexdigest()
