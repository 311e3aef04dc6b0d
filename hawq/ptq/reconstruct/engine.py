"""Learn the rounding of weights and the ranges of activations of one block, so that its output comes near the float's.

The loss is |y' - y|^2 / e, the squared error of the block's output y' against the float output y, relative to the
error e with nearest rounding, plus lambda times the mean indecision of its roundings, whose power falls while they
settle (2004.10568, equations 21 to 25; there neither term is relative, and lambda depends on the network). Inputs come
from the quantized network, so a block also makes up for what those before it lost.

QDrop (2203.05740) mixes: with probability p a value of the input is the float network's, and a value of an activation
inside is passed as it is before quantization. The roundings then serve more inputs than the few they are learned on.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hawq.ptq.reconstruct.activations import run_block
from hawq.ptq.reconstruct.blocks import Block
from hawq.ptq.reconstruct.rounding import LearnedRounding
from hawq.ptq.reconstruct.subjects import Subjects
from hawq.qat.model import QuantizedModel
from hawq.quantizers import UniformActivation
from hawq.quantizers.lsq_plus import LsqPlusActivation

__all__ = ["Reconstruction", "learn", "mix"]

_BYTE = 256
_COMPARED = 64
_SMALLEST_ERROR = 1e-12


@dataclass(frozen=True)
class Reconstruction:
    """How to learn.

    Attributes:
        iterations: of a block.
        drop: probability p with which a value is not quantized, 0..1.
        ranges: learn the ranges of activations.
        batch: images of an iteration.
        rounding_rate: learning rate (Adam's) of the logits of roundings.
        range_rate: of the scale and the lowest value of an activation, in scales; it falls to 0 along a cosine.
        regularizer: lambda.
        warmup: share of the iterations that go by before roundings are pressed to settle.
        powers: of the indecision, first and last.
    """

    iterations: int
    drop: float
    ranges: bool
    batch: int = 16
    rounding_rate: float = 0.1
    range_rate: float = 0.001
    regularizer: float = 4.0
    warmup: float = 0.2
    powers: tuple[float, float] = (20.0, 2.0)

    def power(self, iteration: int) -> float | None:
        """Return the power of the indecision, which falls linearly; None while it does not count yet."""
        begin = self.warmup * self.iterations
        if iteration < begin:
            return None
        first, last = self.powers
        return first + (last - first) * (iteration - begin) / (self.iterations - begin)

    def decay(self, iteration: int) -> float:
        """Return the factor of `range_rate`."""
        return (1 + math.cos(math.pi * iteration / self.iterations)) / 2


def learn(
    model: QuantizedModel,
    block: Block,
    subjects: Subjects,
    quantized: Mapping[str, Tensor],
    floats: Mapping[str, Tensor],
    how: Reconstruction,
    seed: int,
    heard: Callable[[int, float], None],
) -> None:
    """Reconstruct one block; the model's units and quantizers hold the result.

    Args:
        model: quantized, in evaluation mode.
        block: of its graph.
        subjects: what of the block is learned.
        quantized: inputs of the block in the quantized network, not yet quantized themselves, float32, (N, ...) each.
        floats: inputs and output of the block in the float network.
        how: to learn.
        seed: of batches and mixtures.
        heard: told the iterations done and the present error of a batch, relative to that with nearest rounding.
    """
    target = floats[block.output]
    nearest = _error(model, block, quantized, target)
    roundings = {unit: _soften(model, unit) for unit in subjects.units}
    ranges = [_learnable(model, root) for root in subjects.ranges]
    logits = [rounding.logit for rounding in roundings.values()]
    optimizer = torch.optim.Adam(
        [{"params": logits, "lr": how.rounding_rate}]
        + [{"params": [*one.parameters()], "lr": how.range_rate * float(one.step())} for one in ranges]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda _: 1.0] + [how.decay] * len(ranges))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    count = sum(logit.numel() for logit in logits)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad(), _dropping(ranges, how.drop, generator):
        for iteration in range(how.iterations):
            chosen = torch.randint(len(target), (how.batch,), generator=generator)
            given = {n: mix(quantized[n][chosen], floats[n][chosen], how.drop, generator) for n in block.inputs}
            error = (run_block(model, block, given)[block.output] - target[chosen]).square().mean() / nearest
            loss, power = error, how.power(iteration)
            if power is not None:
                loss = loss + how.regularizer * sum(one.indecision(power) for one in roundings.values()) / count
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)  # 0 of a range that is dropped
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            schedule.step()
            heard(iteration + 1, float(error.detach()))
    for unit, rounding in roundings.items():
        model.give_weights(unit, rounding.rounded(), rounding.scales)


def _error(model: QuantizedModel, block: Block, quantized: Mapping[str, Tensor], target: Tensor) -> float:
    """Return the mean squared error of a block's output as it is, of the first images; positive."""
    output = run_block(model, block, {name: quantized[name][:_COMPARED] for name in block.inputs})[block.output]
    return max(float((output - target[:_COMPARED]).square().mean()), _SMALLEST_ERROR)


def mix(quantized: Tensor, real: Tensor, drop: float, generator: torch.Generator) -> Tensor:
    """Return a tensor whose values are those of `real` with probability `drop`, in steps of 1/256, else `quantized`."""
    threshold = round(drop * _BYTE)
    if threshold in (0, _BYTE):
        return real if threshold else quantized
    words = torch.empty(-(-quantized.numel() // 8), dtype=torch.int64).random_(-(1 << 63), None, generator=generator)
    dropped = words.view(torch.uint8)[: quantized.numel()].view(quantized.shape) < threshold
    return torch.where(dropped, real, quantized)


def _soften(model: QuantizedModel, unit: str) -> LearnedRounding:
    """Give a unit learned roundings of its float weights, on its present grid and with the codes it uses at present."""
    module, weight = model.unit(unit), model.graph.tensors[model.graph.unit(unit).weight]
    codes, scale = module.quantizer.codes(module.weight)
    limit = codes.flatten(1).abs().amax(1)
    rounding = LearnedRounding(model.bits.units[unit].weight, weight.detach(), scale, limit, model.options)
    module.quantizer = rounding
    return rounding


def _learnable(model: QuantizedModel, root: str) -> LsqPlusActivation:
    quantizer = model.input_quantizer(root)
    assert isinstance(quantizer, UniformActivation)
    return model.give_range(root, quantizer.step(), quantizer.lowest())


@contextmanager
def _dropping(quantizers: Iterable[nn.Module], drop: float, generator: torch.Generator) -> Iterator[None]:
    """Let quantizers pass some values as they are."""

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return mix(output, inputs[0], drop, generator)

    handles = [quantizer.register_forward_hook(hook) for quantizer in quantizers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
