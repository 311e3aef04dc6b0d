"""Predict to second order what quantizing one unit does to the logits."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from hawq.graph.interpret import run_unit
from hawq.qat.rewrites import bias_name, weight_name
from hawq.sensitivity.curvature import Tape, centred_signs, record
from hawq.sensitivity.perturbation import Subject
from hawq.sensitivity.registry import Quantity, register_metric
from hawq.sensitivity.result import Operand, Term

__all__ = ["Quadratic"]

_PULLS = 4
"""Random vectors for one batch; they share its forward pass."""


@register_metric("quadratic")
class Quadratic:
    """Omega_i(b) = E ||J_W (Q_b(W_i) - W_i)||^2 and E ||J_x (Q_b(x) - x)||^2 for the input: the whole quadratic form.

    J is the derivative of the centred logits, so this is the squared distance they move, to first order in each logit.
    `jacobian` keeps the mean of the diagonal of J^T J alone. ||J d||^2 = E (s . J d)^2 over random signs s, centred,
    and s . J d is the inner product of the gradient of s . z at the unit's output with what d changes there.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.quantities = tuple(
            Quantity(unit, Term(operand, {bits: 1.0}))
            for unit in subject.graph.units
            for operand in Operand
            for bits in subject.widths
        )

    @torch.no_grad()
    def sample(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean over the images of the squared distance for every unit, operand and width."""
        tape = record(self._subject.graph, images, inputs=True)
        pulls = [
            tape.pull(centred_signs(tape.logits, generator), inputs=True, again=k + 1 < _PULLS) for k in range(_PULLS)
        ]
        found = [
            torch.stack([(gradients[unit] * moved).flatten(1).sum(1, dtype=torch.float64).square().mean()
                         for gradients in (pull[operand is Operand.ACTIVATION] for pull in pulls)]).mean()
            for unit, operand, moved in self._moves(tape)
        ]  # fmt: skip
        return torch.stack(found).cpu()

    def _moves(self, tape: Tape) -> Iterator[tuple[str, Operand, Tensor]]:
        """Yield unit, operand and what quantization changes: the unit's output for weights, its input for inputs."""
        graph = self._subject.graph
        for unit, node in graph.units.items():
            value = tape.inputs[unit].detach()
            for bits in self._subject.widths:
                error = self._subject.quantized_weight(unit, bits) - self._subject.weight(unit)
                bias = torch.zeros_like(graph.tensors[bias_name(unit)])
                tensors = {**graph.tensors, weight_name(unit): error, bias_name(unit): bias}
                yield unit, Operand.WEIGHT, run_unit(replace(graph, tensors=tensors), node, value)
            for bits in self._subject.widths:
                yield unit, Operand.ACTIVATION, self._subject.quantized_input(unit, value, bits) - value
