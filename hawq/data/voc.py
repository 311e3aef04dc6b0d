"""PASCAL VOC's folders: images with a mask of classes each, or with boxes around their objects.

The folder, such as `VOCdevkit/VOC2012`, holds `JPEGImages/NAME.jpg`, lists of names in `ImageSets`, and beside them
`SegmentationClass/NAME.png` or `Annotations/NAME.xml`. Images become a square by resizing alone: nothing is cut off.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hawq.boxes import Objects
from hawq.data.image_data import ImageData
from hawq.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Preprocessing
from hawq.data.registry import need_path, register_data
from hawq.data.splits import IGNORED, Augment, Targets, as_pixels
from hawq.errors import HawqError, UsageError
from hawq.images import fitted, open_image, open_mask
from hawq.task import Task

__all__ = ["CLASSES"]

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""By label, of masks and of boxes."""


def _mask(path: Path, size: int) -> Tensor:
    """Return the class of every pixel, int64, (size, size): that of the nearest pixel of the file."""
    image = open_mask(path)
    mask = torch.from_numpy(np.array(image.resize((size, size), Image.Resampling.NEAREST))).long()
    unknown = mask[(mask >= len(CLASSES)) & (mask != IGNORED)]
    if len(unknown):
        raise HawqError(
            f"{path} holds the class {int(unknown[0])}; a mask of VOC holds 0..{len(CLASSES) - 1} and {IGNORED}"
        )
    return mask


def _objects(path: Path, size: int) -> Objects:
    """Return the objects of an image, which is resized to (size, size)."""
    try:
        root = ElementTree.parse(path).getroot()
        across, down = (size / int(_text(root, f"size/{side}")) for side in ("width", "height"))
        found = [(_box(each), _text(each, "name"), each.findtext("difficult", "0")) for each in root.iter("object")]
    except (OSError, ElementTree.ParseError, ValueError, ZeroDivisionError) as error:
        raise HawqError(f"{path} cannot be read ({error}); replace it by a whole annotation of VOC") from error
    for box, name, _ in found:
        if name not in CLASSES[1:]:
            raise HawqError(f"{path} holds an object {name!r}; those of VOC are {', '.join(CLASSES[1:])}")
        if box[2] <= box[0] or box[3] <= box[1]:
            raise HawqError(f"{path} holds an empty box of {name!r}, {box}; correct its bndbox")
    boxes = torch.tensor([box for box, _, _ in found]).view(-1, 4) * torch.tensor([across, down] * 2)
    labels = torch.tensor([CLASSES.index(name) for _, name, _ in found], dtype=torch.int64)
    return Objects(boxes, labels, torch.tensor([flag.strip() == "1" for *_, flag in found], dtype=torch.bool))


def _box(element: ElementTree.Element) -> tuple[float, ...]:
    """Return a box's edges; the file counts pixels from 1 and names the first and the last that are inside."""
    left, top, right, bottom = (float(_text(element, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
    return left - 1, top - 1, right, bottom


def _text(element: ElementTree.Element, path: str) -> str:
    found = element.findtext(path)
    if found is None:
        raise ValueError(f"<{element.tag}> lacks {path}")
    return found.strip()


@dataclass(frozen=True)
class _Kind:
    """Where one kind of annotation lies: the folder of its lists, its own folder, and how a file of it is read."""

    task: Task
    lists: str
    folder: str
    suffix: str
    read: Callable[[Path, int], Any]
    gather: Callable[[list[Any]], Targets]
    size: int


_KINDS = {
    kind.task: kind
    for kind in (
        _Kind(Task.SEGMENTATION, "Segmentation", "SegmentationClass", ".png", _mask, torch.stack, 512),
        _Kind(Task.DETECTION, "Main", "Annotations", ".xml", _objects, list, 320),
    )
}


@dataclass(frozen=True)
class _VocSplit:
    """The images of a list, with their annotations; both are decoded when they are asked for."""

    root: Path
    names: tuple[str, ...]
    kind: _Kind
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, indices: Tensor, augment: Augment, seeds: Tensor) -> Tensor:
        """Return the images; they are never varied, as their targets would not follow."""
        how = self.preprocessing
        images = (open_image(self.root / "JPEGImages" / f"{self.names[int(i)]}.jpg") for i in indices)
        return torch.stack([as_pixels(fitted(one, how.size, how.resize, how.interpolation)) for one in images])

    def targets(self, indices: Tensor) -> Targets:
        """Return the masks, or the objects of each image."""
        return self.kind.gather([self.kind.read(self._annotation(int(i)), self.preprocessing.size) for i in indices])

    def select(self, indices: Tensor) -> "_VocSplit":
        """Return a split of these images only."""
        return replace(self, names=tuple(self.names[int(i)] for i in indices))

    @property
    def annotated(self) -> bool:
        """Whether the annotations are there; those of VOC 2012's test images are not published."""
        return self._annotation(0).is_file()

    def _annotation(self, index: int) -> Path:
        return self.root / self.kind.folder / f"{self.names[index]}{self.kind.suffix}"


def _read(name: str, task: Task, path: Path | None, spec: ModelSpec | None, overrides: dict[str, Any]) -> ImageData:
    root, kind = need_path(name, path), _KINDS[task]
    missing = [folder for folder in ("JPEGImages", kind.folder) if not (root / folder).is_dir()]
    if missing:
        raise UsageError(
            f"{root} lacks {' and '.join(missing)}; give the folder that holds JPEGImages, such as VOCdevkit/VOC2012"
        )
    preprocessing = Preprocessing(kind.size, None, IMAGENET_MEAN, IMAGENET_STD).refined(spec, overrides)

    def split(listed: Path) -> _VocSplit:
        names = tuple(listed.read_text().split()) if listed.is_file() else ()
        if not names:
            raise UsageError(f"{listed} is missing or empty; it lists the names of images, one a line")
        return _VocSplit(root, names, kind, preprocessing)

    lists = root / "ImageSets" / kind.lists
    if (lists / "test.txt").is_file() and (test := split(lists / "test.txt")).annotated:
        train = split(lists / "trainval.txt")
    else:
        train, test = split(lists / "train.txt"), split(lists / "val.txt")
    return ImageData("voc", train, test, len(CLASSES), preprocessing, Augment.NONE, CLASSES, task)


@register_data("voc-segmentation")
def segmentation(path: Path | None, spec: ModelSpec | None, overrides: dict[str, Any]) -> ImageData:
    """Return VOC's images with masks, int64, of classes and 255 where a pixel does not count."""
    return _read("voc-segmentation", Task.SEGMENTATION, path, spec, overrides)


@register_data("voc-detection")
def detection(path: Path | None, spec: ModelSpec | None, overrides: dict[str, Any]) -> ImageData:
    """Return VOC's images with the objects in each."""
    return _read("voc-detection", Task.DETECTION, path, spec, overrides)


@register_data("voc")
def voc(path: Path | None, spec: ModelSpec | None, overrides: dict[str, Any]) -> ImageData:
    """Return VOC's images with what the network is for.

    Raises:
        UsageError: it does not tell, or is for neither masks nor boxes.
    """
    task = spec.task if spec is not None else None
    if task not in _KINDS:
        raise UsageError(
            f"VOC holds masks and boxes, and the network is for {task.value if task else 'nobody says what'}: "
            "give --data voc-segmentation or --data voc-detection"
        )
    return _read("voc", task, path, spec, overrides)
