"""Learn roundings, gains and biases of a block's units, and ranges, so that its output comes near the float's.

The loss is |y' - y|^2 / e, the squared error of the block's output y' against the float output y, relative to the
error e with nearest rounding, plus lambda times the mean indecision of its roundings, whose power falls while they
settle (2004.10568, equations 21 to 25; there neither term is relative, and lambda depends on the network). Inputs come
from the quantized network, so a block also makes up for what those before it lost.

QDrop (2203.05740) mixes: with probability p a value of the input is the float network's, and a value of an activation
inside is passed as it is before quantization. The roundings then serve more inputs than the few they are learned on.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hawq.ptq.reconstruct.activations import run_block
from hawq.ptq.reconstruct.blocks import Block
from hawq.ptq.reconstruct.dropping import DroppingRange, mix
from hawq.ptq.reconstruct.rounding import LearnedRounding
from hawq.ptq.reconstruct.subjects import Subjects
from hawq.qat.model import QuantizedModel
from hawq.quantizers import UniformActivation

__all__ = ["Reconstruction", "learn"]

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
        range_rate: of the scale and the lowest value of an activation, in scales; this and the next two fall to 0 along
            a cosine.
        gain_rate: of the logarithms of weight scales.
        bias_rate: of biases, in the mean magnitude of those of the unit.
        regularizer: lambda.
        warmup: share of the iterations that go by before roundings are pressed to settle.
        powers: of the indecision, first and last.
    """

    iterations: int
    drop: float
    ranges: bool
    batch: int = 8
    rounding_rate: float = 0.1
    range_rate: float = 0.004
    gain_rate: float = 0.002
    bias_rate: float = 0.004
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
        """Return the factor of the rates that fall."""
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
    """Reconstruct one block; the model's units and quantizers hold the result, for `subjects.found`.

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
    generator = torch.Generator().manual_seed(seed)
    roundings = {unit: _soften(model, unit) for unit in subjects.units}
    ranges = [_learnable(model, root, how.drop, generator) for root in subjects.ranges]
    biases = [model.unit(unit).bias for unit in roundings]
    logits = [rounding.logit for rounding in roundings.values()]
    falling = [
        *({"params": [*one.parameters()], "lr": how.range_rate * float(one.step())} for one in ranges),
        *({"params": [rounding.gain], "lr": how.gain_rate} for rounding in roundings.values()),
        *({"params": [bias], "lr": how.bias_rate * float(bias.abs().mean())} for bias in biases if bias is not None),
    ]
    optimizer = torch.optim.Adam([{"params": logits, "lr": how.rounding_rate}, *falling])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda _: 1.0] + [how.decay] * len(falling))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    count = sum(logit.numel() for logit in logits)
    with torch.enable_grad():
        for iteration in range(how.iterations):
            batch = torch.randint(len(target), (how.batch,), generator=generator)
            given = {n: mix(quantized[n][batch], floats[n][batch], how.drop, generator) for n in block.inputs}
            error = (run_block(model, block, given)[block.output] - target[batch]).square().mean() / nearest
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
        model.give_weights(unit, rounding.rounded(), rounding.scales.detach(), rounding.limits)


def _error(model: QuantizedModel, block: Block, quantized: Mapping[str, Tensor], target: Tensor) -> float:
    """Return the mean squared error of a block's output as it is, of the first images; positive."""
    output = run_block(model, block, {name: quantized[name][:_COMPARED] for name in block.inputs})[block.output]
    return max(float((output - target[:_COMPARED]).square().mean()), _SMALLEST_ERROR)


def _soften(model: QuantizedModel, unit: str) -> LearnedRounding:
    """Give a unit learned roundings of its float weights, on its present grid and with the codes it uses at present."""
    module, weight = model.unit(unit), model.graph.tensors[model.graph.unit(unit).weight]
    codes, scale = module.quantizer.codes(module.weight)
    limit = codes.flatten(1).abs().amax(1)
    rounding = LearnedRounding(model.bits.units[unit].weight, weight.detach(), scale, limit, model.options)
    module.quantizer = rounding
    return rounding


def _learnable(model: QuantizedModel, root: str, drop: float, generator: torch.Generator) -> DroppingRange:
    """Let units read a tensor through a quantizer that begins as the present one and learns its range."""
    before = model.input_quantizer(root)
    assert isinstance(before, UniformActivation)
    quantizer = DroppingRange(before, drop, generator).eval()
    model.put_input_quantizer(root, quantizer)
    return quantizer
