"""Measure the mean intersection over union of anything that turns images into logits of every pixel."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hawq.data.splits import IGNORED
from hawq.errors import HawqError

__all__ = ["SegmentationQuality", "mean_iou"]


@dataclass(frozen=True)
class SegmentationQuality:
    """Overlap of predicted and true regions over a set of images.

    Attributes:
        miou: percent.
        images: how many.
    """

    miou: float
    images: int

    def figures(self) -> dict[str, float]:
        """Return what was measured by name, percent."""
        return {"miou": self.miou}


@torch.no_grad()
def mean_iou(
    model: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], num_classes: int
) -> SegmentationQuality:
    """Return the mean over the classes of intersection / union, both summed over the pixels of all images.

    Classes that are neither shown nor predicted are left out. Logits of another size than the masks are
    interpolated, bilinear, corners not aligned.

    Args:
        model: images, (N, C, H, W), to logits, (N, classes, h, w).
        batches: of images and masks, int64, (N, H, W), with `IGNORED` where a pixel does not count.
        num_classes: the background included.

    Raises:
        HawqError: logits of another shape, or masks whose every pixel is ignored.
    """
    from torchmetrics.classification import MulticlassJaccardIndex  # seconds to import; no other task needs it

    metric = MulticlassJaccardIndex(num_classes, ignore_index=IGNORED, validate_args=False)
    images = counted = 0
    for batch, masks in batches:
        logits = model(batch).cpu()
        if logits.ndim != 4 or logits.shape[:2] != (len(masks), num_classes):
            raise HawqError(
                f"the network gives {tuple(logits.shape)} for {len(masks)} images of {num_classes} classes; "
                f"segmentation needs ({len(masks)}, {num_classes}, height, width)"
            )
        for one, mask in zip(logits, masks, strict=True):  # one by one: enlarged logits are large
            metric.update(_enlarged(one, mask).argmax(0), mask)
        images += len(masks)
        counted += int((masks != IGNORED).sum())
    if not counted:
        raise HawqError(f"no pixel of {images} masks counts: measure on more of them")
    return SegmentationQuality(100 * float(metric.compute()), images)


def _enlarged(logits: Tensor, mask: Tensor) -> Tensor:
    if logits.shape[1:] == mask.shape:
        return logits
    return F.interpolate(logits[None], mask.shape, mode="bilinear", align_corners=False)[0]
