"""Quantize the weights or the input of one unit, and measure how far that moves them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hawq.graph.ir import FloatGraph
from hawq.graph.structure import find_domains
from hawq.qat.rewrites import folded_graph, weight_name
from hawq.quantizers import ActivationGrid, QuantOptions
from hawq.quantizers.minmax import MinMaxActivation
from hawq.quantizers.weight import per_channel, quantize_weight, weight_scale

__all__ = ["WIDTHS", "Subject", "prepare", "quantized", "squared_error"]

WIDTHS = tuple(range(2, 9))
"""Bits a unit's weights can have."""


@dataclass(frozen=True)
class Subject:
    """Hold a network ready to be measured.

    Attributes:
        graph: its batch norms are folded.
        widths: that are measured where every width costs time, ascending.
        grids: unit -> where the codes of its input lie.
    """

    graph: FloatGraph
    widths: tuple[int, ...]
    grids: Mapping[str, ActivationGrid]

    def weight(self, unit: str) -> Tensor:
        """Return the float weights of a unit, (O, ...)."""
        return self.graph.tensors[weight_name(unit)]

    def quantized_weight(self, unit: str, bits: int) -> Tensor:
        """Return the weights as `bits` bits keep them, (O, ...)."""
        return quantized(self.weight(unit), bits)

    def quantized_input(self, unit: str, value: Tensor, bits: int) -> Tensor:
        """Return an input of the unit, (N, ...), as `bits` bits keep it, over the range of these very values.

        So no batch depends on another one, and the spread over batches holds that of the ranges.
        """
        with torch.no_grad():
            return MinMaxActivation(bits, self.grids[unit], QuantOptions()).to(value.device)(value)


def prepare(graph: FloatGraph, widths: Iterable[int]) -> Subject:
    """Fold the batch norms of a network and find out what its units read.

    Args:
        graph: the float network.
        widths: to measure.
    """
    domains = find_domains(graph)
    grids = {
        name: ActivationGrid.SYMMETRIC if domains[node.inputs[0]].signed else ActivationGrid.UNSIGNED
        for name, node in graph.units.items()
    }
    return Subject(folded_graph(graph), tuple(sorted(widths)), grids)


def quantized(weight: Tensor, bits: int) -> Tensor:
    """Return Q_b(W), real values: signed, symmetric, one scale per output channel, as training and export quantize.

    Args:
        weight: float, (O, ...), batch norm folded.
        bits: 2..8.
    """
    scale = weight_scale(weight, bits)
    return (quantize_weight(weight, scale, bits).double() * per_channel(scale, weight).double()).to(weight.dtype)


def squared_error(weight: Tensor, bits: int) -> float:
    """Return ||Q_b(W) - W||_2^2, summed over all elements in float64."""
    return float((quantized(weight.double(), bits) - weight.double()).square().sum())
