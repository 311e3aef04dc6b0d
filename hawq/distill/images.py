"""Make images that look to a network like its training data, from nothing but its batch norms."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from hawq.distill.statistics import Divisor, Statistics
from hawq.errors import HawqError, UsageError
from hawq.graph.ir import FloatGraph

__all__ = ["DFQ", "QUICK", "ZEROQ", "Progress", "Recipe", "distill", "silent"]

Progress = Callable[[int, int, float], None]
"""Told the step, the number of steps of all batches, and the loss."""


def silent(step: int, steps: int, loss: float) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Recipe:
    """Say how images are distilled. The first images are (u - centre) / scale with u of 0..255, uniform.

    Attributes:
        centre: of the first images.
        scale: of the first images.
        lr: of Adam.
        steps: for every batch, at most.
        patience: steps without progress before the learning rate falls to a tenth.
        min_lr: the learning rate falls no lower.
        divisor: how batch norms are weighted.
        stop: end a batch at loss <= stop * (batch norms + 1); None: never.
        clamp: keep the images within the range of pixels.
    """

    centre: float
    scale: float
    lr: float
    steps: int
    patience: int = 100
    min_lr: float = 1e-4
    divisor: Divisor = Divisor.IMAGES
    stop: float | None = None
    clamp: bool = False


ZEROQ = Recipe(127.5, 5418.75, lr=0.5, steps=500)
"""As ZeroQ's own code does it (2001.00281); 32 images."""

DFQ = Recipe(127, 128 / 3, lr=0.1, steps=1000, min_lr=1e-7, divisor=Divisor.CHANNELS, stop=0.5, clamp=True)
"""The variant of the DFQ reimplementation; 8 batches of 64. `stop` is MobileNetV2's; ResNet-18 has 1.2."""

QUICK = Recipe(127, 128 / 3, lr=0.1, steps=100, clamp=True)
"""For sensitivities: a fifth of ZeroQ's steps rank the units as well (docs/distilled.md)."""


def distill(
    graph: FloatGraph,
    count: int,
    recipe: Recipe,
    *,
    batch_size: int = 32,
    seed: int = 0,
    bounds: tuple[Tensor, Tensor] | None = None,
    progress: Progress = silent,
) -> Tensor:
    """Return images whose statistics at the batch norms are those of the training data.

    Minimises `Statistics.loss` by Adam over the images, batch by batch; the memory is bounded by one batch.

    Args:
        graph: the float network, on the device to compute on.
        count: images.
        recipe: how.
        batch_size: images that are distilled together.
        seed: of the first images.
        bounds: smallest and largest normalised pixel per channel, (C, 1, 1); needed by recipes that clamp.
        progress: told after every step.

    Returns:
        Normalised images, float32, (count, C, H, W), on the CPU.

    Raises:
        UsageError: the network has no batch norm, fewer than one image, or a recipe that clamps without bounds.
        HawqError: the loss is not finite.
    """
    if count < 1 or batch_size < 1:
        raise UsageError(f"{count} images in batches of {batch_size}: distil at least 1 in batches of at least 1")
    if recipe.clamp and bounds is None:
        raise UsageError("this recipe keeps images within the range of pixels; give that range as bounds")
    statistics = Statistics(graph, recipe.divisor)
    device = next(iter(graph.tensors.values())).device
    limits = tuple(bound.to(device) for bound in bounds) if recipe.clamp and bounds is not None else None
    generator = torch.Generator().manual_seed(seed)
    starts = list(range(0, count, batch_size))
    done: list[Tensor] = []
    for index, start in enumerate(starts):
        shape = (min(batch_size, count - start), *graph.input.shape)
        levels = torch.randint(0, 256, shape, generator=generator).float()
        first = ((levels - recipe.centre) / recipe.scale).to(device)

        def heard(step: int, loss: float, before: int = index * recipe.steps) -> None:
            progress(before + step, len(starts) * recipe.steps, loss)

        done.append(_descend(statistics, first, recipe, limits, heard).cpu())
    return torch.cat(done)


def _descend(
    statistics: Statistics,
    images: Tensor,
    recipe: Recipe,
    limits: tuple[Tensor, ...] | None,
    heard: Callable[[int, float], None],
) -> Tensor:
    """Return the images, (N, C, H, W), after the recipe's steps."""
    images.requires_grad_()
    optimizer = torch.optim.Adam([images], lr=recipe.lr)
    plateau = ReduceLROnPlateau(optimizer, patience=recipe.patience, min_lr=recipe.min_lr)
    for step in range(1, recipe.steps + 1):
        loss = statistics.loss(images)
        value = loss.item()
        if not value < float("inf"):
            raise HawqError(f"distilling diverged in step {step} (loss {value}); check the weights, or lower the rate")
        if recipe.stop is not None and value <= recipe.stop * statistics.terms:
            break
        (images.grad,) = torch.autograd.grad(loss, images)
        optimizer.step()
        plateau.step(value)
        if limits is not None:
            with torch.no_grad():
                images.clamp_(*limits)
        heard(step, value)
    return images.detach()
