"""Metrics that quantize one unit for real and look at what comes out."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hawq.graph.functional import clamp
from hawq.graph.interpret import resume_float, run_float, run_unit
from hawq.graph.ir import Conv2d, Linear
from hawq.qat.rewrites import weight_name
from hawq.sensitivity.perturbation import Subject
from hawq.sensitivity.registry import Quantity, register_metric
from hawq.sensitivity.result import Operand, Term

__all__ = ["Divergence", "Loss", "NoiseToSignal"]


class _OneUnit(ABC):
    """Quantize the weights, then the input, of each unit at each width, all else in float."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.quantities = tuple(Quantity(unit, Term(operand, {bits: 1.0})) for unit, operand, bits in self._cases())

    def _cases(self) -> Iterator[tuple[str, Operand, int]]:
        for unit in self._subject.graph.units:
            for operand in Operand:
                for bits in self._subject.widths:
                    yield unit, operand, bits

    @torch.no_grad()
    def sample(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the rise of every unit, operand and width."""
        known = run_float(self._subject.graph, images)
        rises = [
            self._rise(known, unit, self._output(known, unit, operand, bits), labels)
            for unit, operand, bits in self._cases()
        ]
        return torch.stack(rises).double().cpu()

    def _output(self, known: dict[str, Tensor], unit: str, operand: Operand, bits: int) -> Tensor:
        """Return the unit's output, before its clamp, with one operand quantized."""
        subject = self._subject
        node = subject.graph.nodes[unit]
        value = known[node.inputs[0]]
        if operand is Operand.ACTIVATION:
            return run_unit(subject.graph, node, subject.quantized_input(unit, value, bits))
        tensors = {**subject.graph.tensors, weight_name(unit): subject.quantized_weight(unit, bits)}
        return run_unit(replace(subject.graph, tensors=tensors), node, value)

    def _logits(self, known: dict[str, Tensor], unit: str, output: Tensor) -> Tensor:
        """Return the logits of the network that goes on from the unit's changed output."""
        op = self._subject.graph.nodes[unit].op
        limits = op.clamp if isinstance(op, Conv2d | Linear) else None
        return resume_float(self._subject.graph, known, {unit: clamp(output, limits)})

    @abstractmethod
    def _rise(self, known: dict[str, Tensor], unit: str, output: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the images of what the unit's changed output costs, a scalar."""


@register_metric("kl")
class Divergence(_OneUnit):
    """Omega_i(b) = KL(float softmax || softmax with unit i at b bits), mean over the images (ZeroQ, 2001.00281)."""

    def _rise(self, known: dict[str, Tensor], unit: str, output: Tensor, labels: Tensor) -> Tensor:
        target = known[self._subject.graph.output].double().log_softmax(1)
        found = self._logits(known, unit, output).double().log_softmax(1)
        return F.kl_div(found, target, reduction="batchmean", log_target=True)


@register_metric("loss", labels=True)
class Loss(_OneUnit):
    """Omega_i(b) = rise of the cross entropy when unit i has b bits."""

    def _rise(self, known: dict[str, Tensor], unit: str, output: Tensor, labels: Tensor) -> Tensor:
        before = F.cross_entropy(known[self._subject.graph.output].double(), labels)
        return F.cross_entropy(self._logits(known, unit, output).double(), labels) - before


@register_metric("sqnr")
class NoiseToSignal(_OneUnit):
    """Omega_i(b) = ||y_b - y||^2 / ||y||^2 of the unit's output, mean over the images: 10^(-SQNR / 10)."""

    def _rise(self, known: dict[str, Tensor], unit: str, output: Tensor, labels: Tensor) -> Tensor:
        node = self._subject.graph.nodes[unit]
        exact = run_unit(self._subject.graph, node, known[node.inputs[0]]).double().flatten(1)
        noise = (output.double().flatten(1) - exact).square().sum(1)
        return (noise / exact.square().sum(1).clamp(min=torch.finfo(torch.float64).tiny)).mean()
