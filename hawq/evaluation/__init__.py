"""Measure how good any callable on images is at its task: top-1 and top-5, mIOU, or mAP."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from hawq.data import ImageData
from hawq.evaluation.classification import Accuracy, accuracy
from hawq.evaluation.detection import DetectionQuality, mean_average_precision
from hawq.evaluation.segmentation import SegmentationQuality, mean_iou
from hawq.task import Task

__all__ = [
    "Accuracy",
    "DetectionQuality",
    "SegmentationQuality",
    "accuracy",
    "evaluate",
    "mean_average_precision",
    "mean_iou",
]


def evaluate(
    model: Callable[[Tensor], Any], data: ImageData, *, images: int | None = None, workers: int = 0
) -> Accuracy | SegmentationQuality | DetectionQuality:
    """Return how good a model is at the task of the data, on the test images.

    Args:
        model: images, float32 (N, 3, size, size), to logits, (N, classes); to logits of every pixel, (N, classes, h,
            w); or to the Detections in each image.
        data: to measure on.
        images: at most.
        workers: threads that decode.

    Raises:
        HawqError: the model gives something else, or nothing can be measured on the images.
    """

    def batches(size: int) -> Any:
        return data.batches("test", size, limit=images, workers=workers)

    match data.task:
        case Task.CLASSIFICATION:
            return accuracy(model, batches(64))
        case Task.SEGMENTATION:
            return mean_iou(model, batches(8), data.num_classes)
        case Task.DETECTION:
            return mean_average_precision(model, batches(8))
