"""Say what a quantized model is compared with, and quantize that at other widths."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from hawq.bitconfig import BitConfig, UnitBits
from hawq.graph import ir
from hawq.ptq.statistics import Statistics, find_ranges
from hawq.qat.model import QuantizedModel
from hawq.qat.rewrites import bias_name, folded_graph, weight_name
from hawq.quantizers import QuantOptions
from hawq.quantizers.weight import per_channel

__all__ = ["reference_graph", "sweep_models"]


@torch.no_grad()
def reference_graph(model: QuantizedModel) -> ir.FloatGraph:
    """Return the float network that a model quantizes: its graph with the model's own weights, batch norms folded.

    Training and post-training methods change weights and biases; what quantization costs is seen beside these. Of
    weights that methods have rounded for good nothing else is left.
    """
    graph = folded_graph(model.graph)
    tensors: dict[str, Tensor] = dict(graph.tensors)
    for name in graph.units:
        unit = model.unit(name)
        factor, bias = unit.affine()
        weight = unit.weight if factor is None else unit.weight * per_channel(factor, unit.weight)
        tensors[weight_name(name)] = weight.detach().clone()
        if bias is not None:
            tensors[bias_name(name)] = bias.detach().clone()
        if (limit := getattr(graph.nodes[name].op, "limit", None)) is not None:
            assert unit.limit is not None
            tensors[limit] = unit.limit
    for node in graph.nodes.values():
        norm = model.unit(node.name).norm if isinstance(node.op, ir.Norm) else None
        if norm is not None:
            assert isinstance(node.op, ir.Norm)
            named = node.op.norm
            pairs = ((named.weight, norm.weight), (named.bias, norm.bias), (named.mean, norm.mean),
                     (named.var, norm.var))  # fmt: skip
            tensors.update({key: tensor.detach().clone() for key, tensor in pairs if key is not None})
    return replace(graph, tensors=tensors)


def sweep_models(
    graph: ir.FloatGraph, options: QuantOptions, statistics: Statistics, widths: Iterable[int]
) -> dict[int, QuantizedModel]:
    """Return the network with all its units, the first and last ones too, at each width.

    Args:
        graph: the float network, batch norms folded.
        options: which quantizers.
        statistics: of that network; ranges are found from them.
        widths: 2..8.

    Raises:
        UsageError: a quantizer does not have a width.
    """
    found = {}
    for width in widths:
        bits = BitConfig("", f"uniform{width}", dict.fromkeys(graph.units, UnitBits(width, width)))
        found[width] = QuantizedModel(graph, bits, options).eval()
        find_ranges(found[width], statistics)
    return found
