"""Boxes around objects: those an image shows, and those a detector finds.

A box is (left, top, right, bottom) in pixels of the network's input, where the image spans 0..size in each direction.
"""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Detections", "Objects"]


@dataclass(frozen=True)
class Objects:
    """Objects that an image shows.

    Attributes:
        boxes: float32, (n, 4).
        labels: int64, (n,); 0 is the background, which no object is.
        difficult: bool, (n,); True for objects that are hard to see, which a detector may find or miss.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor


@dataclass(frozen=True)
class Detections:
    """Objects that a detector finds in an image.

    Attributes:
        boxes: float32, (n, 4).
        scores: float32, (n,), higher for those it is surer of.
        labels: int64, (n,).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
