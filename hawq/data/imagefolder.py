"""Image files: `train/` and `val/` with a folder per class, or one folder with a `labels.csv`."""

import csv
from pathlib import Path
from typing import Any

import torch

from hawq.data.image_data import ImageData
from hawq.data.preprocessing import CROP_RATIO, IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Preprocessing
from hawq.data.registry import need_path, register_data
from hawq.data.splits import Augment, FileSplit
from hawq.errors import HawqError, UsageError
from hawq.images import open_image

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
_IMAGENET_CLASSES = 1000
_DEFAULT = Preprocessing(224, round(224 / CROP_RATIO), IMAGENET_MEAN, IMAGENET_STD)


@register_data("imagefolder")
def imagefolder(path: Path | None, spec: ModelSpec | None, overrides: dict[str, Any]) -> ImageData:
    """Return the images of a folder.

    With `train/` and `val/`, labels are the positions of the class folders in sorted order. With `labels.csv` (columns
    `file`, `class_index`) the one set of images serves for testing and, without its labels, for calibration.

    Raises:
        UsageError: the folder is missing, or laid out in neither way.
        HawqError: `labels.csv` is broken, or `val/` has classes that `train/` lacks.
    """
    root = need_path("imagefolder", path)
    preprocessing = _DEFAULT.refined(spec, overrides)
    if (root / "labels.csv").is_file():
        split = _from_labels(root, preprocessing)
        classes = max(_IMAGENET_CLASSES, int(split.labels.max()) + 1)
        return ImageData("imagefolder", split, split, classes, preprocessing, Augment.RESIZED_CROP_FLIP)
    folders = [root / name for name in ("train", "val")]
    if not all(folder.is_dir() for folder in folders):
        raise UsageError(f"{root} holds neither train/ and val/ nor a labels.csv")
    names = sorted(folder.name for folder in folders[0].iterdir() if folder.is_dir())
    unknown = sorted(folder.name for folder in folders[1].iterdir() if folder.is_dir() and folder.name not in names)
    if unknown:
        raise HawqError(f"{folders[1]} has classes that {folders[0]} lacks: {', '.join(unknown[:4])}; make them agree")
    splits = [_from_folders(folder, names, preprocessing) for folder in folders]
    classes = tuple(names)
    return ImageData("imagefolder", *splits, len(names), preprocessing, Augment.RESIZED_CROP_FLIP, classes)


def _from_labels(root: Path, preprocessing: Preprocessing) -> FileSplit:
    try:
        with (root / "labels.csv").open(newline="") as file:
            rows = [(root / row["file"], int(row["class_index"])) for row in csv.DictReader(file)]
    except (KeyError, ValueError, TypeError) as error:
        raise HawqError(f"{root / 'labels.csv'} needs the columns 'file' and 'class_index' ({error!r})") from error
    if any(label < 0 for _, label in rows):
        raise HawqError(f"{root / 'labels.csv'} holds a negative class_index; classes are counted from 0")
    return _split([path for path, _ in rows], [label for _, label in rows], root, preprocessing)


def _from_folders(folder: Path, names: list[str], preprocessing: Preprocessing) -> FileSplit:
    pairs = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).glob("*"))
        if path.suffix.lower() in _SUFFIXES
    ]
    return _split([path for path, _ in pairs], [label for _, label in pairs], folder, preprocessing)


def _split(paths: list[Path], labels: list[int], root: Path, preprocessing: Preprocessing) -> FileSplit:
    if not paths:
        raise UsageError(f"{root} holds no images ({', '.join(sorted(_SUFFIXES))})")
    return FileSplit(paths, open_image, torch.tensor(labels), preprocessing)
