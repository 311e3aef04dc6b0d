"""Metrics that multiply the curvature of the loss with the squared error of quantization."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from hawq.sensitivity.curvature import Curvature, centred_signs, curvature, label_residual, output_factor
from hawq.sensitivity.perturbation import WIDTHS, Subject, squared_error
from hawq.sensitivity.registry import Quantity, register_metric
from hawq.sensitivity.result import Operand, Term

__all__ = ["Fisher", "Hessian", "HessianActivations", "Jacobian", "weight_quantities"]


def weight_quantities(subject: Subject, *, average: bool = True) -> tuple[Quantity, ...]:
    """Return one quantity for every unit: samples of a trace, factor ||Q_b(W) - W||^2, over n if `average`."""
    quantities = []
    for unit in subject.graph.units:
        weight = subject.weight(unit)
        count = weight.numel() if average else 1
        factor = {bits: squared_error(weight, bits) / count for bits in WIDTHS}
        quantities.append(Quantity(unit, Term(Operand.WEIGHT, factor)))
    return tuple(quantities)


@register_metric("hessian")
class Hessian:
    """Omega_i(b) = Tr(H_i) / n_i * ||Q_b(W_i) - W_i||^2, H the Hessian of the cross entropy (HAWQ-V2, 1911.03852).

    The weights have their batch norm folded in, in both factors. `curvature` says how the trace is found.
    """

    def __init__(self, subject: Subject) -> None:
        self._graph = subject.graph
        self.quantities = weight_quantities(subject)

    def sample(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return Tr(H_i) of every unit."""
        found = curvature(self._graph, images, lambda logits: output_factor(logits, generator))
        return _means(found.weights)


@register_metric("fisher", labels=True)
class Fisher:
    """As `hessian`, with the squared gradients of the images' own labels in place of the trace (empirical Fisher)."""

    def __init__(self, subject: Subject) -> None:
        self._graph = subject.graph
        self.quantities = weight_quantities(subject)

    def sample(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return E ||d loss / dW_i||^2 of every unit."""
        found = curvature(self._graph, images, lambda logits: label_residual(logits, labels))
        return _means(found.weights)


class _WeightsAndInputs(ABC):
    """Add to the weights' term the same for the input x of every unit: Tr(H_x) / n_x * ||Q_b(x) - x||^2."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        inputs = [Term(Operand.ACTIVATION, {bits: 1.0}) for bits in subject.widths]
        self.quantities = tuple(
            quantity
            for weights in weight_quantities(subject)
            for quantity in (weights, *(Quantity(weights.unit, term) for term in inputs))
        )

    def sample(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return for every unit Tr(H_i), then the product for its input at each width."""
        graph, widths = self._subject.graph, self._subject.widths
        found = curvature(graph, images, lambda logits: self._direction(logits, generator), inputs=True)
        rows = [
            torch.stack([found.weights[unit].mean(), *(self._product(found, unit, bits) for bits in widths)])
            for unit in graph.units
        ]
        return torch.cat(rows).cpu()

    @staticmethod
    @abstractmethod
    def _direction(logits: Tensor, generator: torch.Generator) -> Tensor:
        """Return the vectors s, (N, classes), that are pulled back."""

    def _product(self, found: Curvature, unit: str, bits: int) -> Tensor:
        value = found.values[unit]
        moved = self._subject.quantized_input(unit, value, bits) - value
        error = moved.double().flatten(1).square().sum(1)
        return (found.inputs[unit] * error).mean() / value[0].numel()


@register_metric("hessian-activations")
class HessianActivations(_WeightsAndInputs):
    """As `hessian`, plus Tr(H_x) / n_x * ||Q_b(x) - x||^2 for the input x of every unit (HAWQ-V2, 1911.03852)."""

    _direction = staticmethod(output_factor)


@register_metric("jacobian")
class Jacobian(_WeightsAndInputs):
    """As `hessian-activations`, with the squared distance of the logits in place of the cross entropy.

    Tr(H_i) is then ||dz/dW_i||^2, logits z centred: the Gauss-Newton matrix of a loss that distils the float network.
    """

    _direction = staticmethod(centred_signs)


def _means(norms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([values.mean() for values in norms.values()]).cpu()
