"""Run a quantized network: fake quantization while it trains, exact integers while it is evaluated."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hawq.bitconfig import BitConfig, UnitQuantizers
from hawq.graph import ir
from hawq.graph.functional import pointwise
from hawq.integer.execute import ReferenceExecutor
from hawq.integer.program import IntegerProgram
from hawq.outputs import plain
from hawq.qat.lower import PixelScaling, lower
from hawq.qat.plan import ActivationSpec, QuantPlan, plan
from hawq.qat.unit import QuantizedUnit
from hawq.quantizers import ActivationQuantizer, QuantOptions, WeightNorm, activation_quantizer, weight_quantizer
from hawq.quantizers.lsq_plus import LsqPlusActivation
from hawq.quantizers.weight import per_channel, weight_limit

__all__ = ["QuantizedModel"]


class QuantizedModel(nn.Module):
    """Quantize a float graph by a bit config.

    In training mode `forward` simulates quantization in float32 and observes activation ranges. In evaluation mode it
    lowers itself to an IntegerProgram and runs that exactly, so an accuracy measured here is the accuracy deployed
    (unless the options ask for the simulation there, too).

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
        self.units = nn.ModuleDict(
            {_key(name): QuantizedUnit.of(graph, name, spec, self.options) for name, spec in self.plan.weights.items()}
        )
        self.stored = nn.ModuleDict({_key(root): self._quantizer(spec) for root, spec in self.plan.stored.items()})
        self.read = nn.ModuleDict({_key(root): self._quantizer(spec) for root, spec in self.plan.read.items()})
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))  # seen in training
        self._dies_after = graph.dies_after()
        self._evaluator: tuple[tuple[object, ...], ReferenceExecutor] | None = None

    def _quantizer(self, spec: ActivationSpec) -> ActivationQuantizer:
        return activation_quantizer(spec.quantizer)(spec.bits, spec.grid, self.options)

    def unit(self, name: str) -> QuantizedUnit:
        """Return the module of a unit or lone batch norm."""
        return self.units[_key(name)]  # type: ignore[return-value]

    def stored_quantizer(self, tensor: str) -> ActivationQuantizer | None:
        """Return the quantizer of the codes a tensor is kept in; None for logits that stay accumulators."""
        if self.plan.domains[tensor].accumulator:
            return None
        return self.stored[_key(self.plan.domains[tensor].root)]  # type: ignore[return-value]

    def input_quantizer(self, tensor: str) -> ActivationQuantizer:
        """Return the quantizer of the codes in which units, tables and second factors read a tensor."""
        root = _key(self.plan.domains[tensor].root)
        return self.read[root] if root in self.read else self.stored[root]  # type: ignore[return-value]

    def forward(self, image: Tensor) -> Any:
        """Return float logits, (N, classes), of float32 images, (N, C, H, W); of several outputs all by name."""
        if self.training:
            self.batches += 1
        if self.training or self.options.fixed_point:
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
    def give_weights(self, unit: str, codes: Tensor, scale: Tensor, limits: Tensor | None = None) -> None:
        """Replace the weights of a unit, and whatever quantizer it has, by codes on a grid.

        Args:
            unit: whose batch norm is folded.
            codes: integers, (O, ...).
            scale: positive, float32, (O,).
            limits: largest magnitudes of the codes, float32, (O,), at most 127; None: those of the unit's bits.

        Raises:
            ValueError: its batch norm is not folded, or codes are beyond their limits.
        """
        module, bits = self.unit(unit), self.bits.units[unit].weight
        limits = torch.full_like(scale, weight_limit(bits)) if limits is None else limits
        if module.norm is not None or bool((codes.flatten(1).abs().amax(1) > limits).any()):
            raise ValueError(f"{unit} has a batch norm, or codes beyond {bits} bits or the limits that are given")
        module.weight.copy_(codes * per_channel(scale, codes))
        self._name_quantizers([unit], weight="given")
        own = replace(self.options, weight_group=1, weight_norm=WeightNorm.NONE.value)
        quantizer = weight_quantizer("given")(bits, module.weight, own)
        quantizer.load_state_dict({"scales": scale, "limits": limits})
        module.quantizer = quantizer.to(codes.device)
        self._evaluator = None

    def give_range(self, tensor: str, scale: Tensor, lowest: Tensor) -> None:
        """Replace the quantizer through which units read a tensor, a uniform one, by `lsq+` with a given range.

        Args:
            tensor: that units read.
            scale: positive, float32, a scalar.
            lowest: real value of the lowest code, float32, a scalar; 0 where the tensor is never negative.
        """
        domain, before = self.plan.domains[tensor], self.input_quantizer(tensor)
        self._name_quantizers(domain.readers, activation="lsq+")
        quantizer = LsqPlusActivation(before.bits, before.grid, self.options)
        quantizer.begin_at(scale, lowest)
        self.put_input_quantizer(tensor, quantizer.to(scale.device).train(self.training))

    def put_input_quantizer(self, tensor: str, quantizer: ActivationQuantizer) -> None:
        """Let units read a tensor through another quantizer, of the same bits; the bit config does not know of it."""
        root = _key(self.plan.domains[tensor].root)
        (self.read if root in self.read else self.stored)[root] = quantizer
        self._evaluator = None

    def _name_quantizers(self, units: Iterable[str], **names: str) -> None:
        named = dict(self.bits.quantizers)
        named.update({unit: named.get(unit, UnitQuantizers())._replace(**names) for unit in units})
        self.bits = replace(self.bits, quantizers=named)
        self.plan = plan(self.graph, self.bits, self.options)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Show batches of float32 images, (N, C, H, W), to the activation quantizers, which find their ranges.

        Batch norm keeps its running statistics, weights do not change.
        """
        with self.calibrating():
            for batch in batches:
                self._simulate(batch, fix_bn=True)

    @contextmanager
    def calibrating(self) -> Iterator[None]:
        """Let the activation quantizers forget their ranges, and find new ones from what they are shown."""
        quantizers = [m for m in self.modules() if isinstance(m, ActivationQuantizer)]
        for quantizer in quantizers:
            quantizer.start_calibration()
            quantizer.calibrating = True
        try:
            yield
        finally:
            for quantizer in quantizers:
                quantizer.calibrating = False

    def suspect(self) -> str:
        """Return which tensor holds NaN or infinity first, in the order of the network, as the end of a sentence."""
        for node in self.graph.nodes.values():
            if _key(node.name) in self.units and not _finite(self.units[_key(node.name)]):
                return f"; the weights or statistics of {node.name} are not finite"
            quantizer = self.stored_quantizer(node.name)
            if quantizer is not None and not _finite(quantizer):
                return f"; the range of {node.name} is not finite"
        return ""

    @property
    def _fixes_bn(self) -> bool:
        """Whether batch norm's running statistics are folded at this point of the training."""
        after = self.options.fix_bn_after
        return self.options.fix_bn or not self.training or (after is not None and int(self.batches) > after)

    def _simulate(self, image: Tensor, fix_bn: bool | None = None) -> Any:
        fix_bn = self._fixes_bn if fix_bn is None else fix_bn
        values: dict[str, Tensor] = {}
        reads: dict[str, Tensor] = {}
        for node in self.graph.nodes.values():
            self.advance(node, image, values, reads, fix_bn)
            for name in self._dies_after[node.name]:
                del values[name]
                reads.pop(name, None)
        return plain({name: values[tensor] for name, tensor in self.graph.outputs.items()})

    def advance(
        self, node: ir.Node, image: Tensor, values: dict[str, Tensor], reads: dict[str, Tensor], fix_bn: bool = True
    ) -> None:
        """Compute one node as training does, fake-quantized.

        Args:
            node: whose inputs are computed.
            image: float32, (N, C, H, W).
            values: tensors by name; gets the node's.
            reads: what narrow readers see, by tensor; gets what this one reads.
            fix_bn: fold the running statistics of batch norms.
        """
        values[node.name] = self.keep(node.name, self.compute(node, image, values, reads, fix_bn))

    def keep(self, tensor: str, value: Tensor) -> Tensor:
        """Return a computed tensor in the codes it is kept in, fake-quantized."""
        quantizer = self.stored_quantizer(tensor)
        at_root = self.plan.domains[tensor].root == tensor
        return value if quantizer is None or not at_root else quantizer(value)

    def reading(self, source: str, values: dict[str, Tensor], reads: dict[str, Tensor]) -> Tensor:
        """Return a tensor as its narrow readers see it; one kept in 16 bits is quantized once for all of them."""
        if source not in reads:
            quantizer = self.input_quantizer(source)
            stored = self.stored_quantizer(source) is quantizer
            reads[source] = values[source] if stored else quantizer(values[source])
        return reads[source]

    def compute(
        self, node: ir.Node, image: Tensor, values: dict[str, Tensor], reads: dict[str, Tensor], fix_bn: bool = True
    ) -> Tensor:
        """Return what `advance` adds to the values, before it is quantized."""
        match node.op:
            case ir.Input():
                return image
            case ir.Conv2d() | ir.Linear():
                source = node.inputs[0]
                value = self.reading(source, values, reads)
                return self.unit(node.name)(value, self.input_quantizer(source), fix_bn)
            case ir.Norm():
                source = node.inputs[0]
                quantizer = self.stored[_key(self.plan.domains[source].root)]
                return self.unit(node.name)(values[source], quantizer, fix_bn)
            case ir.Unary() as op:
                return pointwise(op, [self.reading(node.inputs[0], values, reads)])
            case ir.Mul() as op:
                first, second = node.inputs
                return pointwise(op, [values[first], self.reading(second, values, reads)])
            case op:
                return pointwise(op, [values[name] for name in node.inputs])


def _key(name: str) -> str:
    """Return a tensor's name as a module name, which may hold no dot."""
    return name.replace(".", "/")


def _finite(module: nn.Module) -> bool:
    state = (*module.parameters(), *module.buffers())
    return all(bool(torch.isfinite(tensor).all()) for tensor in state if tensor.is_floating_point())
