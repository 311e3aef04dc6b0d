"""Images in one .npz file: arrays of pixels, or JPEG bytes with offsets."""

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
from hawq.data.splits import Augment, FileSplit, MemorySplit, Split, decode_jpeg
from hawq.errors import HawqError

_SMALL = 64
"""Images up to this size are used as they are, larger ones are resized and cropped."""


@register_data("npz")
def npz(path: Path | None, spec: ModelSpec | None, overrides: dict[str, Any]) -> ImageData:
    """Return the images of a file with the arrays of one of two kinds.

    Pixels: `train_x`, `test_x`, uint8 (N, H, W, 3). JPEG: `train_blob`, `test_blob`, the bytes of all images, uint8,
    and `train_off`, `test_off`, int64 (N + 1,), where each begins. Both: `train_y`, `test_y`, (N,).
    """
    file = need_path("npz", path)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, BadZipFile, EOFError) as error:
        raise HawqError(f"{file} cannot be read as .npz without pickle ({error})") from error
    kind = "x" if "train_x" in found else "blob"
    needed = [
        f"{split}_{name}"
        for split in ("train", "test")
        for name in (["x", "y"] if kind == "x" else ["blob", "off", "y"])
    ]
    missing = [name for name in needed if name not in found]
    if missing:
        raise HawqError(f"{file} lacks the arrays {', '.join(missing)}; it has {', '.join(sorted(found)) or 'none'}")
    labels = {split: torch.from_numpy(found[f"{split}_y"].astype(np.int64)) for split in ("train", "test")}
    native = found["train_x"].shape[1] if kind == "x" else decode_jpeg(_slices(found, "train")[0]).height
    small = native <= _SMALL
    default = Preprocessing(native, None if small else round(native / CROP_RATIO), IMAGENET_MEAN, IMAGENET_STD)
    preprocessing = default.refined(None if small else spec, overrides)
    splits = [_split(found, split, kind, labels[split], preprocessing, file) for split in ("train", "test")]
    classes = int(max(labels["train"].max(), labels["test"].max())) + 1
    augment = Augment.CROP_FLIP if small else Augment.RESIZED_CROP_FLIP
    return ImageData("npz", *splits, classes, preprocessing, augment)


def _slices(found: dict[str, np.ndarray], split: str) -> list[np.ndarray]:
    blob, offsets = found[f"{split}_blob"], found[f"{split}_off"]
    return [blob[a:b] for a, b in pairwise(offsets)]


def _split(
    found: dict[str, np.ndarray], split: str, kind: str, labels: Tensor, preprocessing: Preprocessing, file: Path
) -> Split:
    sources: Any = found[f"{split}_x"] if kind == "x" else _slices(found, split)
    if len(sources) != len(labels):
        raise HawqError(f"{file}: {split} has {len(sources)} images and {len(labels)} labels")
    if kind == "x" and (sources.dtype != np.uint8 or sources.ndim != 4 or sources.shape[3] != 3):
        raise HawqError(f"{file}: {split}_x is {sources.dtype} {sources.shape}, expected uint8 (N, H, W, 3)")
    if kind == "x" and sources.shape[1:3] == (preprocessing.size, preprocessing.size):
        return MemorySplit(torch.from_numpy(sources).permute(0, 3, 1, 2).contiguous(), labels)
    if kind == "x":
        return FileSplit(sources, _from_pixels, labels, preprocessing)
    decoded = FileSplit(sources, decode_jpeg, labels, preprocessing)
    if preprocessing.resize is None:  # small images: decode once
        indices = torch.arange(len(labels))
        return MemorySplit(decoded.pixels(indices, Augment.NONE, indices), labels)
    return decoded


def _from_pixels(source: object) -> Any:
    from PIL import Image

    return Image.fromarray(np.asarray(source))
