"""Compare the statistics of images with those that a network's batch norms remember of its training data."""

from dataclasses import replace
from enum import Enum

import torch
from torch import Tensor

from hawq.errors import UsageError
from hawq.graph.interpret import run_float
from hawq.graph.ir import BatchNorm, Conv2d, FloatGraph, Linear, Node, Norm

__all__ = ["Divisor", "Statistics"]

_EPS = 1e-6
"""Added to variances before the root (2001.00281)."""


class Divisor(Enum):
    """What a batch norm's sum of squares over images and channels is divided by: the number of one or the other."""

    IMAGES = "images"
    CHANNELS = "channels"


class Statistics:
    """Measure how far images are from what the batch norms of a network saw in training.

    loss(x) = sum over batch norms of ||mean_bn - mean(x)||^2 + ||std_bn - std(x)||^2, plus the same for the images
    themselves with mean 0 and std 1 (ZeroQ, 2001.00281). The tensor that enters a batch norm counts: for a unit, its
    convolution's output before its norm. Statistics are those of every image by itself, over the positions, so that
    no image depends on the others; a map of a single value has no spread, and only its mean counts.
    """

    def __init__(self, graph: FloatGraph, divisor: Divisor) -> None:
        """Prepare a network.

        Args:
            graph: the float network; its tensors are read, never changed.
            divisor: how batch norms are weighted.

        Raises:
            UsageError: the network has no batch norm.
        """
        self._graph, self._divisor = _unfused(graph), divisor
        self._norms = [
            (node.inputs[0], node.op.norm) for node in self._graph.nodes.values() if isinstance(node.op, Norm)
        ]
        if not self._norms:
            raise UsageError(
                "images cannot be distilled: the network has no batch norm, so it remembers nothing of its training "
                "data; give real images, or weights from before the batch norms were folded"
            )

    @property
    def terms(self) -> int:
        """Number of batch norms, plus one for the images themselves."""
        return len(self._norms) + 1

    def loss(self, images: Tensor) -> Tensor:
        """Return the loss of normalised images, (N, C, H, W), a scalar that gradients flow through."""
        found = run_float(self._graph, images)
        total = self._distance(images, images.new_zeros(()), images.new_ones(()), Divisor.IMAGES)
        for name, norm in self._norms:
            mean, std = self._remembered(norm)
            total = total + self._distance(found[name], mean, std, self._divisor)
        return total

    def _remembered(self, norm: BatchNorm) -> tuple[Tensor, Tensor]:
        return self._graph.tensors[norm.mean], (self._graph.tensors[norm.var] + _EPS).sqrt()

    def _distance(self, value: Tensor, mean: Tensor, std: Tensor, divisor: Divisor) -> Tensor:
        rows = value.reshape(*value.shape[:2], -1)  # (N, C, positions)
        variances, means = torch.var_mean(rows, dim=2, correction=0)
        total = (means - mean).square().sum()
        if rows.shape[2] > 1:
            total = total + ((variances + _EPS).sqrt() - std).square().sum()
        return total / means.shape[0 if divisor is Divisor.IMAGES else 1]


def _unfused(graph: FloatGraph) -> FloatGraph:
    """Return the same network with every unit's batch norm as a node of its own, its tensors detached."""
    nodes: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        op = node.op
        if isinstance(op, Conv2d | Linear) and op.norm is not None:
            bare = f"{name}/bare"
            nodes[bare] = replace(node, name=bare, op=replace(op, norm=None, clamp=None))
            node = replace(node, op=Norm(op.norm, op.clamp), inputs=(bare,))
        nodes[name] = node
    return replace(graph, nodes=nodes, tensors={name: tensor.detach() for name, tensor in graph.tensors.items()})
