"""Measure the accuracy of anything that turns images into logits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hawq.distributed import World

__all__ = ["Accuracy", "accuracy"]


@dataclass(frozen=True)
class Accuracy:
    """Accuracy over a set of images.

    Attributes:
        top1: percent of images whose highest logit is the label's.
        top5: percent of images whose label is among the five highest logits.
        images: how many.
        predictions: class of every image, int64, (images,).
        labels: class that it shows, int64, (images,).
    """

    top1: float
    top5: float
    images: int
    predictions: Tensor
    labels: Tensor

    def figures(self) -> dict[str, float]:
        """Return what was measured by name, percent."""
        return {"top1": self.top1, "top5": self.top5}

    def agreement(self, other: "Accuracy") -> float:
        """Return the percent of images for which both predict the same class."""
        return 100 * int((self.predictions == other.predictions).sum()) / self.images


@torch.no_grad()
def accuracy(
    model: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], world: World | None = None
) -> Accuracy:
    """Return the accuracy of a model in evaluation mode, the same on every process.

    Args:
        model: images, (N, C, H, W), to logits, (N, classes).
        batches: of images and labels, int64, (N,): those that this process owns.
        world: the processes that share them.

    Raises:
        HawqError: on every process, what one of them raised.
    """
    found = (world or World()).share(_best(model(images).cpu(), labels.cpu()) for images, labels in batches)
    best, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    hits = best == labels[:, None]
    first, five = (100 * int(right.sum()) / max(len(labels), 1) for right in (hits[:, 0], hits.any(1)))
    return Accuracy(first, five, len(labels), best[:, 0], labels)


def _best(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the five highest classes, (N, 5), fewer where there are fewer, and the labels."""
    return logits.topk(min(5, logits.shape[1]), dim=1).indices, labels
