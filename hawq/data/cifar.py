"""CIFAR-10 and CIFAR-100 in torchvision's folder layout."""

from pathlib import Path
from typing import Any

import torch
from torchvision import datasets

from hawq.data.image_data import ImageData
from hawq.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Preprocessing
from hawq.data.registry import need_path, register_data
from hawq.data.splits import Augment, pixel_split
from hawq.errors import UsageError

__all__ = ["CIFAR_PREPROCESSING"]

CIFAR_PREPROCESSING = Preprocessing(32, None, IMAGENET_MEAN, IMAGENET_STD)
"""What pytorchcv's CIFAR networks are trained with."""


def _read(name: str, kind: type[datasets.CIFAR10], path: Path | None, overrides: dict[str, Any]) -> ImageData:
    root = need_path(name, path)
    preprocessing = CIFAR_PREPROCESSING.refined(None, overrides)
    splits = []
    for train in (True, False):
        try:
            found = kind(str(root), train=train, download=False)
        except RuntimeError as error:
            raise UsageError(f"{root} holds no whole {name} ({kind.base_folder}): {error}") from error
        splits.append(pixel_split(found.data, torch.tensor(found.targets), preprocessing))
    classes = 10 if kind is datasets.CIFAR10 else 100
    return ImageData(name, *splits, classes, preprocessing, Augment.CROP_FLIP, tuple(found.classes))


@register_data("cifar10")
def cifar10(path: Path | None, spec: ModelSpec | None, overrides: dict[str, Any]) -> ImageData:
    """Return CIFAR-10 from `<path>/cifar-10-batches-py`."""
    return _read("cifar10", datasets.CIFAR10, path, overrides)


@register_data("cifar100")
def cifar100(path: Path | None, spec: ModelSpec | None, overrides: dict[str, Any]) -> ImageData:
    """Return CIFAR-100 from `<path>/cifar-100-python`."""
    return _read("cifar100", datasets.CIFAR100, path, overrides)
