"""Measure the curvature of the loss in every unit's weights and inputs, image by image (Gauss-Newton).

The logits z of a network of convolutions, batch norms, ReLU, ReLU6, pools and additions are piecewise linear in the
weights of any one unit, and in its input. The second derivative of the loss with respect to either is then exactly

    H = J^T S J,    J = dz/dw,    S = d2 loss / dz2 = diag(p) - p p^T    (cross entropy, p = softmax(z))

and its trace is E ||J^T s||^2 for any random s with E[s s^T] = S. One backward pass for one image so gives a sample
that is never negative and holds no noise of other units or of the directions within a unit, where Hutchinson's
v^T H v has both (HAWQ-V2, 1911.03852; Gauss-Newton: 1412.1193).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hawq.graph.interpret import run_float, run_unit
from hawq.graph.ir import Conv2d, FloatGraph, Node

__all__ = ["Curvature", "Tape", "centred_signs", "curvature", "label_residual", "output_factor", "record"]

_CHUNK = 1 << 22
"""Numbers that the patches of one chunk of images may hold: 16 MiB, which malloc keeps for the next chunk."""

Direction = Callable[[Tensor], Tensor]
"""Turn logits, (N, classes), into the vectors s, (N, classes), that are pulled back."""


@dataclass(frozen=True)
class Curvature:
    """Hold squared norms of gradients per image.

    Attributes:
        weights: unit -> ||d(s.z)/dW||^2, float64, (N,).
        inputs: unit -> ||d(s.z)/dx||^2 through this unit alone, float64, (N,); empty unless asked for.
        values: unit -> its input, (N, ...); empty unless asked for.
    """

    weights: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    values: Mapping[str, Tensor]


def output_factor(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return s = sqrt(p) * e - p * sum(sqrt(p) * e) with e of random signs: E[s s^T] = diag(p) - p p^T.

    Args:
        logits: (N, classes).
        generator: draws the signs; on the CPU, so that every device gets the same.
    """
    p = logits.detach().softmax(1)
    signs = torch.randint(0, 2, logits.shape, generator=generator) * 2 - 1
    rooted = p.sqrt() * signs.to(p)
    return rooted - p * rooted.sum(1, keepdim=True)


def centred_signs(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return s = e - mean(e) with e of random signs: E[s s^T] = I - 1 1^T / classes.

    That is the second derivative of the squared distance of the logits, half of it, up to what all logits have in
    common and no softmax sees. Every image counts alike, where a cross entropy hears only those in doubt.
    """
    signs = (torch.randint(0, 2, logits.shape, generator=generator) * 2 - 1).to(logits)
    return signs - signs.mean(1, keepdim=True)


def label_residual(logits: Tensor, labels: Tensor) -> Tensor:
    """Return s = p - onehot(label): the gradient of the cross entropy of every image (empirical Fisher)."""
    return logits.detach().softmax(1) - F.one_hot(labels, logits.shape[1]).to(logits)


@dataclass(frozen=True)
class Tape:
    """Hold a forward pass whose gradients can be asked for.

    Attributes:
        graph: batch norms folded.
        logits: (N, classes).
        inputs: unit -> its input, (N, ...); its gradient is that of this edge, not of the tensor's other readers.
        outputs: unit -> its output before the clamp, (N, ...).
    """

    graph: FloatGraph
    logits: Tensor
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    def pull(self, s: Tensor, *, inputs: bool, again: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the gradients of s.z with respect to the outputs, and the inputs where asked for.

        Args:
            s: (N, classes).
            inputs: whether the inputs' are wanted.
            again: whether another pull follows.
        """
        wanted = [*self.outputs.values(), *(self.inputs.values() if inputs else ())]
        found = [g.detach() for g in torch.autograd.grad(self.logits, wanted, s, retain_graph=again)]
        count = len(self.outputs)
        return dict(zip(self.outputs, found, strict=False)), dict(zip(self.inputs, found[count:], strict=False))


def record(graph: FloatGraph, images: Tensor, *, inputs: bool) -> Tape:
    """Run a network and keep what gradients need.

    Args:
        graph: batch norms folded (`folded_graph`).
        images: (N, C, H, W).
        inputs: whether gradients of the inputs will be asked for.
    """
    sources: dict[str, Tensor] = {}
    results: dict[str, Tensor] = {}

    def unit(node: Node, value: Tensor) -> Tensor:
        value = value.view_as(value) if value.requires_grad else value.detach().requires_grad_(inputs)
        result = run_unit(graph, node, value)
        result = result if result.requires_grad else result.requires_grad_()
        sources[node.name], results[node.name] = value, result
        return result

    with torch.enable_grad():
        logits = run_float(graph, images, unit)[graph.output]
    return Tape(graph, logits, sources, results)


def curvature(graph: FloatGraph, images: Tensor, direction: Direction, *, inputs: bool = False) -> Curvature:
    """Return the squared norms of d(s.z)/dW, and of d(s.z)/dx where asked for, of every unit and image.

    Args:
        graph: batch norms folded (`folded_graph`).
        images: (N, C, H, W).
        direction: gives s.
        inputs: measure the units' inputs, too.
    """
    tape = record(graph, images, inputs=inputs)
    outward, inward = tape.pull(direction(tape.logits), inputs=inputs)
    values = {name: value.detach() for name, value in tape.inputs.items()}
    units = graph.units
    weights = {name: _weight_norms(units[name], graph, values[name], outward[name]) for name in units}
    squares = {name: gradient.flatten(1).square().sum(1, dtype=torch.float64) for name, gradient in inward.items()}
    return Curvature(weights, squares, values if inputs else {})


def _weight_norms(node: Node, graph: FloatGraph, value: Tensor, gradient: Tensor) -> Tensor:
    """Return ||sum over positions of gradient x patch||^2 of every image, float64, (N,)."""
    if not isinstance(node.op, Conv2d):  # a linear layer: an outer product
        return value.double().square().sum(1) * gradient.double().square().sum(1)
    op = node.op
    kernel = graph.tensors[op.weight].shape[2:]
    top, bottom, left, right = op.padding
    length = gradient[0, 0].numel()
    per_image = value.shape[1] * kernel.numel() * length
    norms = []
    for x, g in zip(*(tensor.split(max(1, _CHUNK // per_image)) for tensor in (value, gradient)), strict=True):
        padded = F.pad(x, (left, right, top, bottom))
        patches = (
            padded
            if kernel.numel() == 1 and op.stride == (1, 1)
            else F.unfold(padded, kernel, op.dilation, 0, op.stride)
        )
        patches = patches.reshape(len(x) * op.groups, -1, length)
        spread = g.reshape(len(x) * op.groups, -1, length)
        norms.append(_outer_norm(patches, spread).view(len(x), op.groups).sum(1))
    return torch.cat(norms)


def _outer_norm(a: Tensor, b: Tensor) -> Tensor:
    """Return ||a b^T||_F^2 of every pair of (P, L) and (Q, L), float64, (n,): directly, or as <a^T a, b^T b>.

    The second form needs L^2 (P + Q) instead of P Q L multiplications: few positions, many channels (1510.01799).
    """
    (p, length), q = a.shape[1:], b.shape[1]
    few_positions = length * (p + q) < p * q
    product = (a.mT @ a) * (b.mT @ b) if few_positions else (a @ b.mT).square()
    return product.flatten(1).sum(1, dtype=torch.float64)
