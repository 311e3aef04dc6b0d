"""Run a quantized network: fake quantization while it trains, exact integers while it is evaluated."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hawq.bitconfig import BitConfig
from hawq.graph import ir
from hawq.graph.functional import pointwise
from hawq.integer.execute import ReferenceExecutor
from hawq.integer.program import IntegerProgram
from hawq.qat.lower import PixelScaling, lower
from hawq.qat.plan import QuantizerSpec, QuantOptions, QuantPlan, plan
from hawq.qat.unit import QuantizedUnit
from hawq.quantizers.activation import ActivationQuantizer

__all__ = ["QuantizedModel"]

_NORM_BITS = 8


class QuantizedModel(nn.Module):
    """Quantize a float graph by a bit config.

    In training mode `forward` simulates quantization in float32 and observes activation ranges. In evaluation mode it
    lowers itself to an IntegerProgram and runs that exactly, so an accuracy measured here is the accuracy deployed.

    Args:
        graph: the float network; its tensors are copied.
        bits: bits of every unit.
        options: how to train.

    Raises:
        HawqError: the bit config does not fit the graph.
    """

    def __init__(self, graph: ir.FloatGraph, bits: BitConfig, options: QuantOptions | None = None) -> None:
        super().__init__()
        self.graph, self.bits, self.options = graph, bits, options or QuantOptions()
        self.plan: QuantPlan = plan(graph, bits, self.options)
        self.units = nn.ModuleDict()
        for name, node in graph.nodes.items():
            if isinstance(node.op, ir.Conv2d | ir.Linear | ir.Norm):
                weight_bits = bits.units[name].weight if name in bits.units else _NORM_BITS
                self.units[_key(name)] = QuantizedUnit.of(graph, name, weight_bits)
        self.stored = nn.ModuleDict({_key(root): self._quantizer(spec) for root, spec in self.plan.stored.items()})
        self.read = nn.ModuleDict({_key(root): self._quantizer(spec) for root, spec in self.plan.read.items()})
        self._evaluator: tuple[tuple[object, ...], ReferenceExecutor] | None = None

    def _quantizer(self, spec: QuantizerSpec) -> ActivationQuantizer:
        return ActivationQuantizer(spec.bits, spec.grid, self.options.act_range_momentum)

    def unit(self, name: str) -> QuantizedUnit:
        """Return the module of a unit or lone batch norm."""
        return self.units[_key(name)]  # type: ignore[return-value]

    def stored_quantizer(self, tensor: str) -> ActivationQuantizer | None:
        """Return the quantizer of the codes a tensor is kept in; None for logits that stay accumulators."""
        if self.plan.domains[tensor].accumulator:
            return None
        return self.stored[_key(self.plan.domains[tensor].root)]  # type: ignore[return-value]

    def input_quantizer(self, tensor: str) -> ActivationQuantizer:
        """Return the quantizer of the codes in which a unit reads a tensor."""
        root = _key(self.plan.domains[tensor].root)
        return self.read[root] if root in self.read else self.stored[root]  # type: ignore[return-value]

    def forward(self, image: Tensor) -> Tensor:
        """Return float logits, (N, classes), of float32 images, (N, C, H, W)."""
        if self.training:
            return self._simulate(image)
        return self.evaluator(image.device).logits(image)

    def lower(self, pixels: PixelScaling | None = None) -> IntegerProgram:
        """Return the network as an IntegerProgram, which takes raw pixels where their scaling is given.

        Raises:
            HawqError: a range was never observed, weights are not finite, or scales are beyond dyadic numbers.
        """
        return lower(self, pixels)

    def evaluator(self, device: torch.device | str = "cpu") -> ReferenceExecutor:
        """Return the exact executor of the present weights and ranges; lowered anew only after they changed."""
        state = [*self.parameters(), *self.buffers()]
        key = (torch.device(device), *((t.data_ptr(), t._version) for t in state))
        if self._evaluator is None or self._evaluator[0] != key:
            self._evaluator = (key, ReferenceExecutor(self.lower(), device))
        return self._evaluator[1]

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set the activation ranges to the minimum and maximum over batches of float32 images, (N, C, H, W).

        Batch norm keeps its running statistics, weights do not change.
        """
        with self._calibrating():
            for batch in batches:
                self._simulate(batch)

    @contextmanager
    def _calibrating(self) -> Iterator[None]:
        options, training = self.options, self.training
        quantizers = [m for m in self.modules() if isinstance(m, ActivationQuantizer)]
        self.options = QuantOptions(fix_bn=True, act_range_momentum=-1, asymmetric=options.asymmetric)
        for quantizer in quantizers:
            quantizer.seen.fill_(False)
            quantizer.momentum = -1
        self.train()
        try:
            yield
        finally:
            self.options = options
            for quantizer in quantizers:
                quantizer.momentum = options.act_range_momentum
            self.train(training)

    def suspect(self) -> str:
        """Return which tensor holds NaN or infinity first, in the order of the network, as the end of a sentence."""
        for node in self.graph.nodes.values():
            if _key(node.name) in self.units and not _finite(self.units[_key(node.name)]):
                return f"; the weights or statistics of {node.name} are not finite"
            quantizer = self.stored_quantizer(node.name)
            if quantizer is not None and not _finite(quantizer):
                return f"; the range of {node.name} is not finite"
        return ""

    def _simulate(self, image: Tensor) -> Tensor:
        values: dict[str, Tensor] = {}
        reads: dict[str, Tensor] = {}
        for node in self.graph.nodes.values():
            value = self._compute(node, image, values, reads)
            quantizer = self.stored_quantizer(node.name)
            if quantizer is not None and self.plan.domains[node.name].root == node.name:
                value = quantizer(value)
            values[node.name] = value
        return values[self.graph.output]

    def _compute(self, node: ir.Node, image: Tensor, values: dict[str, Tensor], reads: dict[str, Tensor]) -> Tensor:
        match node.op:
            case ir.Input():
                return image
            case ir.Conv2d() | ir.Linear():
                source = node.inputs[0]
                quantizer = self.input_quantizer(source)
                if source not in reads:  # a residual stream is quantized once for all units that read it
                    stored = self.stored_quantizer(source) is quantizer
                    reads[source] = values[source] if stored else quantizer(values[source])
                return self._run_unit(node, reads[source], quantizer)
            case ir.Norm():
                source = node.inputs[0]
                return self._run_unit(node, values[source], self.stored[_key(self.plan.domains[source].root)])
            case op:
                return pointwise(op, [values[name] for name in node.inputs])

    def _run_unit(self, node: ir.Node, value: Tensor, quantizer: ActivationQuantizer) -> Tensor:
        scale, _ = quantizer.scale_and_zero_point()
        return self.unit(node.name)(value, scale, self.options.fix_bn)


def _key(name: str) -> str:
    """Return a tensor's name as a module name, which may hold no dot."""
    return name.replace(".", "/")


def _finite(module: nn.Module) -> bool:
    state = (*module.parameters(), *module.buffers())
    return all(bool(torch.isfinite(tensor).all()) for tensor in state if tensor.is_floating_point())
