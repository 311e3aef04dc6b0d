"""The embedded data set: scikit-learn's 1,797 handwritten digits, 8x8, upscaled to 32x32."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from hawq.data.image_data import ImageData
from hawq.data.preprocessing import ModelSpec, Preprocessing
from hawq.data.registry import register_data
from hawq.data.splits import Augment, MemorySplit

_SIZE, _TEST_SHARE = 32, 0.2


@register_data("digits")
def digits(path: Path | None, spec: ModelSpec | None, overrides: dict[str, Any]) -> ImageData:
    """Return the digits; every fifth image of each class is a test image. What the network knows is not asked."""
    from sklearn.datasets import load_digits  # a second to import; only this data set needs it

    raw = load_digits()
    preprocessing = Preprocessing(_SIZE, None, (0.5,) * 3, (0.5,) * 3).refined(None, overrides)
    size = preprocessing.size
    grey = torch.from_numpy(raw.images).float()[:, None] * (255 / 16)
    scaled = F.interpolate(grey, (size, size), mode=preprocessing.interpolation, align_corners=False)
    images = scaled.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(raw.target).long()
    rank = torch.zeros_like(labels)  # position of each image within its class
    for label in range(10):
        rank[labels == label] = torch.arange(int((labels == label).sum()))
    is_test = rank % round(1 / _TEST_SHARE) == 0
    train, test = (MemorySplit(images[mask], labels[mask]) for mask in (~is_test, is_test))
    return ImageData("digits", train, test, 10, preprocessing, Augment.SHIFT, tuple("0123456789"))
