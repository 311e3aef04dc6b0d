"""Hash networks and tensors, so that what was computed from them can be found again."""

import hashlib

import torch
from torch import Tensor

from hawq.graph.ir import FloatGraph

__all__ = ["identity", "update"]


def identity(graph: FloatGraph, *facts: object) -> str:
    """Return the SHA-256, in hexadecimal digits, of a network with its weights and of whatever else counts.

    Args:
        graph: the network.
        facts: whose `repr` tells all that matters about them.
    """
    digest = hashlib.sha256(repr((*facts, tuple(graph.nodes.values()), tuple(graph.outputs.items()))).encode())
    for name in sorted(graph.tensors):
        digest.update(name.encode())
        update(digest, graph.tensors[name])
    return digest.hexdigest()


def update(digest: "hashlib._Hash", tensor: Tensor) -> None:
    """Add a tensor's type, shape and bytes to a hash."""
    digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
