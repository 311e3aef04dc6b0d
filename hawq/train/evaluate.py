"""Measure the accuracy of anything that turns images into logits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

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

    def agreement(self, other: "Accuracy") -> float:
        """Return the percent of images for which both predict the same class."""
        return 100 * int((self.predictions == other.predictions).sum()) / self.images


@torch.no_grad()
def accuracy(model: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> Accuracy:
    """Return the accuracy of a model in evaluation mode.

    Args:
        model: images, (N, C, H, W), to logits, (N, classes).
        batches: of images and labels, int64, (N,).
    """
    first = five = count = 0
    predictions: list[Tensor] = []
    shown: list[Tensor] = []
    for images, labels in batches:
        logits = model(images).cpu()
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = best == labels.cpu()[:, None]
        first, five, count = first + int(hits[:, 0].sum()), five + int(hits.any(1).sum()), count + len(labels)
        predictions.append(best[:, 0])
        shown.append(labels.cpu())
    total = max(count, 1)
    return Accuracy(100 * first / total, 100 * five / total, count, torch.cat(predictions), torch.cat(shown))
