"""Estimate sensitivity as average Hessian trace times squared weight error (HAWQ-V2, 1911.03852)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from hawq.graph.interpret import run_float
from hawq.graph.ir import FloatGraph
from hawq.sensitivity.folded import folded_graph, weight_name
from hawq.sensitivity.hutchinson import Estimate, Probing, WeightedLoss, block_traces
from hawq.sensitivity.perturbation import WIDTHS, squared_error
from hawq.sensitivity.registry import Batch, Measurement, OnProbe, register_sensitivity
from hawq.sensitivity.result import UnitSensitivity

__all__ = ["hessian"]


@register_sensitivity("hessian")
def hessian(graph: FloatGraph, batches: Sequence[Batch], probing: Probing, on_probe: OnProbe) -> Measurement:
    """Return Omega_i(b) = max(Tr(H_i), 0) / n_i * ||Q_b(W_i) - W_i||^2 for every unit i and b in 2..8.

    H is the Hessian of the cross entropy, averaged over the images, of the network in evaluation mode. W are the
    weights with batch norm folded in, in both factors: the trace is taken with respect to the very numbers that are
    quantized. A trace that comes out negative counts as 0: a loss that falls along random directions is no reason to
    expect that quantization helps.

    Args:
        graph: the float network.
        batches: images and labels on the network's device; memory is bounded by the largest batch.
        probing: of the Hutchinson estimator.
        on_probe: follows the progress.
    """
    folded = folded_graph(graph)
    weights = {unit: folded.tensors[weight_name(unit)] for unit in graph.units}
    leaves = {unit: weight.clone().requires_grad_() for unit, weight in weights.items()}
    probed = replace(folded, tensors={**folded.tensors, **{weight_name(u): leaf for u, leaf in leaves.items()}})
    images = sum(len(labels) for _, labels in batches)

    def loss(image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(run_float(probed, image)[probed.output], label)

    losses = [WeightedLoss(partial(loss, image, label), len(label) / images) for image, label in batches]
    with torch.enable_grad():
        traces = block_traces(leaves, losses, probing, on_probe)
    units = {unit: _sensitivity(weights[unit], trace) for unit, trace in traces.items()}
    return Measurement(units, max((trace.probes for trace in traces.values()), default=0))


def _sensitivity(weight: Tensor, trace: Estimate) -> UnitSensitivity:
    average = max(trace.mean, 0.0) / weight.numel()
    error = trace.error if isfinite(trace.error) else None
    omega = {bits: average * squared_error(weight, bits) for bits in WIDTHS}
    return UnitSensitivity(weight.numel(), trace.mean, error, omega)
