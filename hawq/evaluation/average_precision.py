"""Average precision of one class as the PASCAL VOC challenge defines it.

Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 2010, and the kits of VOC 2007 and VOC 2012.
COCO's average precision differs in its interpolation (101 points), in what a detection may be matched with, and in
how objects are left out.
"""

from enum import Enum

import torch
from torch import Tensor
from torchvision.ops import box_iou

from hawq.boxes import Objects

__all__ = ["OVERLAP", "Interpolation", "average_precision", "match"]

OVERLAP = 0.5
"""Intersection over union from which on a box is the object's."""


class Interpolation(Enum):
    """At which recalls the precision is averaged.

    VOC07: 0, 0.1, ..., 1. VOC12: every recall there is, which gives the area under the curve; VOC's own since 2010.
    """

    VOC07 = "VOC07"
    VOC12 = "VOC12"

    def needed(self, objects: int) -> list[int]:
        """Return the recalls as numbers of objects that must be found, of all there are."""
        if self is Interpolation.VOC07:
            return [-(-objects * tenth // 10) for tenth in range(11)]
        return list(range(1, objects + 1))


def average_precision(hits: Tensor, objects: int, interpolation: Interpolation) -> float:
    """Return the mean over recalls of the highest precision at this recall or beyond, 0 where it is never reached.

    Args:
        hits: bool, (n,), whether each detection found an object, in falling order of the scores.
        objects: that there are to find, 1 or more.
        interpolation: which recalls.
    """
    found = hits.cumsum(0)
    precision = found.double() / torch.arange(1, len(hits) + 1)
    highest = torch.cat([precision.flip(0).cummax(0).values.flip(0), torch.zeros(1, dtype=torch.float64)])
    reached = torch.searchsorted(found, torch.tensor(interpolation.needed(objects)))
    return float(highest[reached].mean())


def match(boxes: Tensor, truth: Objects) -> tuple[Tensor, Tensor]:
    """Return which detections of one class in one image found an object, and which count at all.

    A detection is compared with the object it overlaps most, and finds it where they overlap enough and no detection
    of a higher score has found it. One that overlaps a difficult object enough does not count.

    Args:
        boxes: float, (n, 4), in falling order of the scores.
        truth: the objects of the class.

    Returns:
        Two bool tensors, (n,).
    """
    hits, counts = torch.zeros(len(boxes), dtype=torch.bool), torch.ones(len(boxes), dtype=torch.bool)
    if len(boxes) and len(truth.labels):
        overlap, nearest = box_iou(boxes.double(), truth.boxes.double()).max(1)
        enough = overlap >= OVERLAP
        counts = ~(enough & truth.difficult[nearest])
        claims = (enough & counts).nonzero()[:, 0].tolist()
        first = {int(nearest[claim]): claim for claim in reversed(claims)}
        hits[list(first.values())] = True
    return hits, counts
