"""Measure the largest eigenvalue of every unit's Hessian block (HAWQ, 1905.03696), with PyHessian's power iteration."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hawq.graph.interpret import run_float
from hawq.graph.ir import FloatGraph
from hawq.qat.rewrites import weight_name
from hawq.sensitivity.perturbation import Subject
from hawq.sensitivity.registry import register_metric
from hawq.sensitivity.traces import weight_quantities

__all__ = ["Eigenvalue", "OneUnit"]

_ITERATIONS, _TOLERANCE = 100, 1e-3


class OneUnit(nn.Module):
    """Be the network with the weights of a single unit as its only parameter, so that PyHessian sees one block."""

    def __init__(self, graph: FloatGraph, unit: str) -> None:
        super().__init__()
        self._graph, self._name = graph, weight_name(unit)
        self.weight = nn.Parameter(graph.tensors[self._name].clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, classes)."""
        tensors = {**self._graph.tensors, self._name: self.weight}
        graph = replace(self._graph, tensors=tensors)
        return run_float(graph, images)[graph.output]


@register_metric("eigenvalue", labels=True)
class Eigenvalue:
    """Omega_i(b) = lambda_i * ||Q_b(W_i) - W_i||^2, lambda the largest eigenvalue of H_i (HAWQ-V1, 1905.03696)."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.quantities = weight_quantities(subject, average=False)

    def sample(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return lambda_i of every unit."""
        from pyhessian import hessian  # GPL, and needed nowhere else

        found = []
        for unit in self._subject.graph.units:
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                torch.manual_seed(int(torch.randint(0, 2**62, (), generator=generator)))
                network = OneUnit(self._subject.graph, unit)
                block = hessian(network, F.cross_entropy, (images, labels), cuda=images.is_cuda)
                values, _ = block.eigenvalues(_ITERATIONS, _TOLERANCE, 1)
            found.append(float(values[0]))
            network.weight.grad = None  # it holds the whole graph of derivatives
        return torch.tensor(found, dtype=torch.float64)
