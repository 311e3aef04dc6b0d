"""Measure the mean average precision of anything that turns images into boxes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hawq.boxes import Detections, Objects
from hawq.errors import HawqError
from hawq.evaluation.average_precision import Interpolation, average_precision, match

__all__ = ["DetectionQuality", "mean_average_precision"]


@dataclass(frozen=True)
class DetectionQuality:
    """Mean average precision over a set of images.

    Attributes:
        map07: percent, by VOC 2007's eleven recalls.
        map12: percent, by VOC 2012's area under the curve.
        images: how many.
    """

    map07: float
    map12: float
    images: int

    def figures(self) -> dict[str, float]:
        """Return what was measured by name, percent."""
        return {"map07": self.map07, "map12": self.map12}


@dataclass
class _Class:
    """What was found of one class: scores and hits of the detections that count, and how many objects there are."""

    scores: list[Tensor] = field(default_factory=list)
    hits: list[Tensor] = field(default_factory=list)
    objects: int = 0

    def add(self, found: Detections, truth: Objects) -> None:
        order = found.scores.argsort(descending=True, stable=True)
        hits, counts = match(found.boxes[order], truth)
        self.scores.append(found.scores[order][counts])
        self.hits.append(hits[counts])
        self.objects += int((~truth.difficult).sum())

    def average_precision(self, interpolation: Interpolation) -> float:
        order = torch.cat(self.scores).argsort(descending=True, stable=True)
        return average_precision(torch.cat(self.hits)[order], self.objects, interpolation)


@torch.no_grad()
def mean_average_precision(
    model: Callable[[Tensor], Sequence[Detections]], batches: Iterable[tuple[Tensor, Sequence[Objects]]]
) -> DetectionQuality:
    """Return the mean over the classes of their average precision.

    Classes of which no object counts are left out.

    Args:
        model: images, (N, C, H, W), to what it finds in each.
        batches: of images and the objects each shows.

    Raises:
        HawqError: no object counts at all.
    """
    classes: dict[int, _Class] = {}
    images = 0
    for batch, truths in batches:
        images += len(truths)
        for found, truth in zip(model(batch), truths, strict=True):
            for label in torch.cat([found.labels.cpu(), truth.labels]).unique().tolist():
                classes.setdefault(label, _Class()).add(_found(found, label), _shown(truth, label))
    counted = [each for each in classes.values() if each.objects]
    if not counted:
        raise HawqError(f"{images} images show no object that counts: measure on more of them")
    eleven, every = (
        100 * sum(each.average_precision(kind) for each in counted) / len(counted)
        for kind in (Interpolation.VOC07, Interpolation.VOC12)
    )
    return DetectionQuality(eleven, every, images)


def _found(found: Detections, label: int) -> Detections:
    own = found.labels == label
    return Detections(found.boxes[own].cpu(), found.scores[own].cpu(), found.labels[own].cpu())


def _shown(truth: Objects, label: int) -> Objects:
    own = truth.labels == label
    return Objects(truth.boxes[own], truth.labels[own], truth.difficult[own])
