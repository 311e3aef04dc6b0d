"""Quantize one unit at a time and see what it does to the logits; look at the noise on its way there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hawq.analysis.noise import Noise, NoiseMeter, activation_ends, weight_ends
from hawq.bitconfig import UnitBits
from hawq.errors import HawqError
from hawq.graph.interpret import resume_float, run_float
from hawq.graph.ir import FloatGraph
from hawq.ptq.workbench import Progress, silent
from hawq.qat.model import QuantizedModel

__all__ = ["Analysis", "Effect", "UnitAnalysis", "analyze"]


@dataclass(frozen=True)
class Effect:
    """What becomes of the logits.

    Attributes:
        drop: top-1 of the float network less that of the changed one, percent of the images.
        kl: KL(float softmax || changed softmax), nats, mean over the images.
    """

    drop: float
    kl: float


@dataclass(frozen=True)
class UnitAnalysis:
    """What the quantization of one unit does.

    Attributes:
        bits: of its weights and input.
        weight: noise of its weights.
        activation: noise of the tensor it reads, as float units make it.
        output: noise of what it puts out, activation included, when it alone is quantized.
        alone: effect of quantizing it alone.
        sweep: the same by width, weights and input alike.
        unevenness: largest over median max |x| of the channels that it reads; channels of zeros do not count.
    """

    bits: UnitBits
    weight: Noise
    activation: Noise
    output: Noise
    alone: Effect
    sweep: Mapping[int, Effect]
    unevenness: float


@dataclass(frozen=True)
class Analysis:
    """What was found on some images.

    Attributes:
        images: how many.
        top1: of the float network, percent.
        whole: effect of quantizing everything, in integers.
        units: in the order of the network.
    """

    images: int
    top1: float
    whole: Effect
    units: Mapping[str, UnitAnalysis]

    @property
    def worst_first(self) -> Sequence[str]:
        """The units by falling KL of quantizing them alone; it tells units apart where top-1 counts few images."""
        return sorted(self.units, key=lambda unit: -self.units[unit].alone.kl)


@torch.no_grad()
def analyze(
    graph: FloatGraph,
    model: QuantizedModel,
    sweep: Mapping[int, QuantizedModel],
    batches: Iterable[tuple[Tensor, Tensor]],
    progress: Progress = silent,
    images: int = 0,
) -> Analysis:
    """Compare a quantized model with its float network, unit by unit.

    Memory is that of all tensors of the network for one batch.

    Args:
        graph: the float network, batch norms folded.
        model: of that network, in evaluation mode.
        sweep: the network at other widths.
        batches: images and labels, (N,).
        progress: told how many images are done.
        images: how many there will be, for the progress.

    Raises:
        HawqError: no images, or a network whose logits are not one vector an image.
    """
    if len(graph.nodes[graph.output].shape) != 1:
        raise HawqError("only classifiers can be analyzed: the network puts out more than one vector an image")
    found = {unit: _Unit(graph, model, sweep, unit) for unit in graph.units}
    whole, done, hits = _EffectMeter(), 0, 0
    for batch, labels in batches:
        known = run_float(graph, batch)
        target = _Target(known[graph.output], labels)
        whole.add(target, model.evaluator(batch.device).logits(batch))
        for unit in found.values():
            unit.add(known, target)
        hits += target.hits
        done += len(labels)
        progress("analyzing units", done, images, "")
    if not done:
        raise HawqError("an analysis needs at least one image; given none")
    units = {name: unit.finish() for name, unit in found.items()}
    return Analysis(done, 100 * hits / done, whole.effect(), units)


class _Target:
    """What a changed network is compared with on one batch."""

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        self.labels, self.log_softmax = labels, logits.double().log_softmax(1)
        self.hits = int((logits.argmax(1) == labels).sum())


class _EffectMeter:
    """Sum up an effect batch by batch."""

    def __init__(self) -> None:
        self._lost, self._kl, self._images = 0, 0.0, 0

    def add(self, target: _Target, logits: Tensor) -> None:
        found = logits.double().log_softmax(1)
        self._kl += float(F.kl_div(found, target.log_softmax, reduction="sum", log_target=True))
        self._lost += target.hits - int((logits.argmax(1) == target.labels).sum())
        self._images += len(logits)

    def effect(self) -> Effect:
        # the sum of rounded terms may fall below 0 where nothing changes
        return Effect(100 * self._lost / self._images, max(self._kl / self._images, 0.0))


class _Unit:
    """Measure one unit."""

    def __init__(
        self, graph: FloatGraph, model: QuantizedModel, sweep: Mapping[int, QuantizedModel], name: str
    ) -> None:
        self._graph, self._model, self._sweep, self._name = graph, model, sweep, name
        self._source = graph.nodes[name].inputs[0]
        self._ends = activation_ends(model.input_quantizer(self._source))
        self._activation, self._output = NoiseMeter(), NoiseMeter()
        self._alone, self._widths = _EffectMeter(), {width: _EffectMeter() for width in sweep}
        self._peaks = torch.zeros(())

    def add(self, known: Mapping[str, Tensor], target: _Target) -> None:
        """Take in a batch, given every float tensor."""
        value = known[self._source]
        self._peaks = torch.maximum(self._peaks, value.transpose(0, 1).flatten(1).abs().amax(1))
        self._activation.add(value, self._model.input_quantizer(self._source)(value), self._ends)
        output = self._quantized(self._model, value)
        self._output.add(known[self._name], output)
        self._alone.add(target, resume_float(self._graph, known, {self._name: output}))
        for width, model in self._sweep.items():
            changed = {self._name: self._quantized(model, value)}
            self._widths[width].add(target, resume_float(self._graph, known, changed))

    def _quantized(self, model: QuantizedModel, value: Tensor) -> Tensor:
        """Return what the unit makes of its float input when both are quantized."""
        quantizer = model.input_quantizer(self._source)
        output: Tensor = model.unit(self._name)(quantizer(value), quantizer, fix_bn=True)
        return output

    def finish(self) -> UnitAnalysis:
        alive = self._peaks[self._peaks > 0]
        return UnitAnalysis(
            bits=self._model.bits.units[self._name],
            weight=self._weight(),
            activation=self._activation.noise(),
            output=self._output.noise(),
            alone=self._alone.effect(),
            sweep={width: meter.effect() for width, meter in self._widths.items()},
            unevenness=float(alive.max() / alive.median()) if len(alive) else 1.0,
        )

    def _weight(self) -> Noise:
        """Return the noise of the weights, batch norm folded in."""
        unit, meter = self._model.unit(self._name), NoiseMeter()
        exact = self._graph.tensors[self._graph.unit(self._name).weight]
        factor = unit.affine()[0]
        quantized, (low, high) = unit.quantizer(unit.weight), weight_ends(unit)
        if factor is not None:
            scale = factor.view(-1, *(1,) * (exact.dim() - 1))
            quantized, low, high = quantized * scale, low * scale.abs(), high * scale.abs()
        meter.add(exact, quantized, (low, high))
        return meter.noise()
