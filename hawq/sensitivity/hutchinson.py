"""Estimate the Hessian trace of all units at once from Hessian-vector products (Hutchinson; 1911.03852, 1912.07145).

It holds for any loss and any network. For piecewise linear ones `curvature` finds the same traces faster.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hawq.graph.interpret import run_float
from hawq.qat.rewrites import weight_name
from hawq.sensitivity.perturbation import Subject
from hawq.sensitivity.registry import register_metric
from hawq.sensitivity.traces import weight_quantities

__all__ = ["Hutchinson", "block_traces"]

_PROBES = 4
"""Random vectors for one batch; they share its gradient."""


@register_metric("hutchinson", labels=True)
class Hutchinson:
    """As `hessian`, with Tr(H_i) = E[v^T H_i v] over random signs v in place of the Gauss-Newton identity."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.quantities = weight_quantities(subject)

    def sample(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return Tr(H_i) of every unit, the mean over 4 probes."""
        graph = self._subject.graph
        leaves = {unit: self._subject.weight(unit).clone().requires_grad_() for unit in graph.units}
        probed = replace(graph, tensors={**graph.tensors, **{weight_name(unit): leaf for unit, leaf in leaves.items()}})

        def loss() -> Tensor:
            return F.cross_entropy(run_float(probed, images)[probed.output], labels)

        with torch.enable_grad():
            return block_traces(leaves, loss, _PROBES, generator).mean(0).cpu()


def block_traces(
    parameters: Mapping[str, Tensor], loss: Callable[[], Tensor], probes: int, generator: torch.Generator
) -> Tensor:
    """Return v_i . (H v)_i of every probe and block, float64, (probes, blocks).

    One vector v of independent +-1 spans all blocks. H v is the gradient of g . v, and v_i . (H v)_i has the
    expectation Tr(H_ii): blocks off the diagonal contribute zero on average. For a diagonal Hessian a single probe is
    exact.

    Args:
        parameters: block name -> leaf tensor that requires a gradient.
        loss: computes the loss of one batch.
        probes: how many random vectors.
        generator: draws them; on the CPU.
    """
    leaves = list(parameters.values())
    gradients = torch.autograd.grad(loss(), leaves, create_graph=True, materialize_grads=True)
    curved = [gradient for gradient in gradients if gradient.requires_grad]
    rows = []
    for probe in range(probes):
        vectors = [_signs(leaf, generator) for leaf in leaves]
        directions = [v for v, gradient in zip(vectors, gradients, strict=True) if gradient.requires_grad]
        products = (
            torch.autograd.grad(curved, leaves, directions, retain_graph=probe + 1 < probes, materialize_grads=True)
            if curved
            else [torch.zeros_like(leaf) for leaf in leaves]
        )
        rows.append(torch.stack([(v.double() * hv).sum() for v, hv in zip(vectors, products, strict=True)]))
    return torch.stack(rows).detach()


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return independent +1/-1 of the shape of a tensor; drawn on the CPU, so that every device gets the same."""
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)
