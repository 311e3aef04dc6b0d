"""Name what a network is for: it decides what data holds beside the images, and what is measured."""

from enum import Enum

__all__ = ["Task"]


class Task(Enum):
    """What a network says of an image.

    CLASSIFICATION: one class. SEGMENTATION: a class for every pixel. DETECTION: boxes around objects, with classes.
    """

    CLASSIFICATION = "classification"
    SEGMENTATION = "segmentation"
    DETECTION = "detection"
