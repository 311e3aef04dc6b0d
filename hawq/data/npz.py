"""Images in one .npz file: arrays of pixels, or JPEG bytes with offsets."""

import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from hawq.data.image_data import ImageData
from hawq.data.preprocessing import CROP_RATIO, IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Preprocessing
from hawq.data.registry import need_path, register_data
from hawq.data.splits import Augment, FileSplit, Split, pixel_split
from hawq.errors import HawqError
from hawq.images import decode_jpeg

Images = np.ndarray | Sequence[np.ndarray]
"""Pixels, uint8 (N, H, W, 3), or the bytes of each image."""

_SMALL = 64
"""Images up to this size are used as they are, larger ones are resized and cropped."""


@register_data("npz")
def npz(path: Path | None, spec: ModelSpec | None, overrides: dict[str, Any]) -> ImageData:
    """Return the images of a file with the arrays of one of two kinds.

    Pixels: `train_x`, `test_x`, uint8 (N, H, W, 3). JPEG: `train_blob`, `test_blob`, the bytes of all images, uint8,
    and `train_off`, `test_off`, int64 (N + 1,), where each begins. Both: `train_y`, `test_y`, (N,).

    Raises:
        UsageError: no such file.
        HawqError: the file is torn, lacks arrays, or they have the wrong type or shape.
    """
    file = need_path("npz", path)
    found = _read(file)
    kind = "x" if "train_x" in found else "blob"
    needed = [
        f"{split}_{name}"
        for split in ("train", "test")
        for name in (["x", "y"] if kind == "x" else ["blob", "off", "y"])
    ]
    missing = [name for name in needed if name not in found]
    if missing:
        raise HawqError(f"{file} lacks the arrays {', '.join(missing)}; it has {', '.join(sorted(found)) or 'none'}")
    labels = {split: _labels(found[f"{split}_y"], f"{file}: {split}_y") for split in ("train", "test")}
    images = {split: _images(found, split, f"{file}: {split}") for split in ("train", "test")}
    for split in labels:
        if len(images[split]) != len(labels[split]):
            raise HawqError(f"{file}: {split} has {len(images[split])} images and {len(labels[split])} labels")
    native = found["train_x"].shape[1] if kind == "x" else decode_jpeg(images["train"][0]).height
    small = native <= _SMALL
    default = Preprocessing(native, None if small else round(native / CROP_RATIO), IMAGENET_MEAN, IMAGENET_STD)
    preprocessing = default.refined(None if small else spec, overrides)
    splits = [_split(images[split], labels[split], preprocessing) for split in ("train", "test")]
    classes = int(max(labels["train"].max(), labels["test"].max())) + 1
    augment = Augment.CROP_FLIP if small else Augment.RESIZED_CROP_FLIP
    return ImageData("npz", *splits, classes, preprocessing, augment)


def _read(file: Path) -> dict[str, np.ndarray]:
    try:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it holds one bare array")
        with arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, BadZipFile, EOFError, zlib.error) as error:
        raise HawqError(f"{file} cannot be read as .npz without pickle ({error})") from error


def _labels(array: np.ndarray, name: str) -> Tensor:
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) == 0 or array.min() < 0:
        raise HawqError(f"{name} is {array.dtype} {array.shape}, expected integers from 0, (N,), N at least 1")
    return torch.from_numpy(array.astype(np.int64))


def _images(found: dict[str, np.ndarray], split: str, name: str) -> Images:
    """Return the images of a split: an array of pixels, or the bytes of each file."""
    if "train_x" in found:
        pixels = found[f"{split}_x"]
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise HawqError(f"{name}_x is {pixels.dtype} {pixels.shape}, expected uint8 (N, H, W, 3)")
        return pixels
    blob, offsets = found[f"{split}_blob"], found[f"{split}_off"]
    if blob.dtype != np.uint8 or blob.ndim != 1 or offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise HawqError(
            f"{name}_blob is {blob.dtype} {blob.shape} and {name}_off {offsets.dtype} {offsets.shape}, expected uint8 "
            "(bytes,) and integers (N + 1,)"
        )
    if len(offsets) < 2 or offsets[0] < 0 or offsets[-1] > len(blob) or (offsets[1:] <= offsets[:-1]).any():
        raise HawqError(f"{name}_off must rise from 0 to at most {len(blob)}, the length of {split}_blob")
    return [blob[a:b] for a, b in pairwise(offsets)]


def _split(images: Images, labels: Tensor, preprocessing: Preprocessing) -> Split:
    if isinstance(images, np.ndarray):
        return pixel_split(images, labels, preprocessing)
    split = FileSplit(images, decode_jpeg, labels, preprocessing)
    return split.in_memory() if preprocessing.resize is None else split  # small images: decode once
