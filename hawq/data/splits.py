"""Hold the images of a split: in memory as one tensor, or as files that are decoded when they are asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hawq.boxes import Objects
from hawq.data.preprocessing import Preprocessing
from hawq.images import fitted

__all__ = ["IGNORED", "Augment", "FileSplit", "MemorySplit", "Split", "Targets", "as_pixels", "pixel_split"]

IGNORED = 255
"""Value of a mask's pixels that do not count: the rims of objects."""

Targets = Tensor | list[Objects]
"""What images show: labels, int64, (n,); or masks, int64, (n, size, size); or the objects of each."""


class Augment(Enum):
    """How training images are varied.

    SHIFT: up to 2 pixels in each direction. CROP_FLIP: up to 4 pixels, and mirrored half the time. RESIZED_CROP_FLIP:
    a crop of 8% to 100% of the area with an aspect of 3/4 to 4/3 (1409.4842), mirrored half the time.
    """

    NONE = "none"
    SHIFT = "shift"
    CROP_FLIP = "crop-flip"
    RESIZED_CROP_FLIP = "resized-crop-flip"


class Split(Protocol):
    """Images, and what they show, that can be indexed."""

    def __len__(self) -> int:
        """Return the number of images."""

    def pixels(self, indices: Tensor, augment: Augment, seeds: Tensor) -> Tensor:
        """Return uint8 pixels, (n, 3, size, size).

        Args:
            indices: int64, (n,).
            augment: how to vary them.
            seeds: int64, (n,), one for each image, so that the result depends on nothing else.
        """

    def targets(self, indices: Tensor) -> Targets:
        """Return what the images show.

        Args:
            indices: int64, (n,).
        """

    def select(self, indices: Tensor) -> "Split":
        """Return a split of these images only."""


@dataclass(frozen=True)
class MemorySplit:
    """Images as one uint8 tensor, (N, 3, size, size)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Tensor, augment: Augment, seeds: Tensor) -> Tensor:
        """Return the images, shifted and mirrored as `augment` says."""
        images = self.images[indices]
        reach = {Augment.NONE: 0, Augment.SHIFT: 2, Augment.CROP_FLIP: 4, Augment.RESIZED_CROP_FLIP: 4}[augment]
        if reach == 0:
            return images
        size, span = images.shape[-1], 2 * reach + 1
        padded = F.pad(images, (reach,) * 4)
        dy, dx, flip = seeds % span, seeds // span % span, (seeds // span**2 % 2 == 1) & (augment is not Augment.SHIFT)
        steps = torch.arange(size)
        rows = (dy[:, None] + steps)[:, None, :, None]
        columns = (dx[:, None] + torch.where(flip[:, None], steps.flip(0), steps))[:, None, None, :]
        count = torch.arange(len(images))[:, None, None, None]
        return padded[count, torch.arange(3)[None, :, None, None], rows, columns]

    def targets(self, indices: Tensor) -> Tensor:
        """Return the labels."""
        return self.labels[indices]

    def select(self, indices: Tensor) -> "MemorySplit":
        """Return a split of these images only."""
        return MemorySplit(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class FileSplit:
    """Images that are decoded one by one.

    Attributes:
        sources: what `decode` takes, one for each image.
        decode: source -> RGB image.
        labels: int64, (N,).
        preprocessing: size, resize and interpolation.
    """

    sources: Sequence[object]
    decode: Callable[[object], Image.Image]
    labels: Tensor
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Tensor, augment: Augment, seeds: Tensor) -> Tensor:
        """Return the images, cropped at random or in the centre."""
        return torch.stack([self._one(int(i), augment, int(s)) for i, s in zip(indices, seeds, strict=True)])

    def targets(self, indices: Tensor) -> Tensor:
        """Return the labels."""
        return self.labels[indices]

    def in_memory(self) -> MemorySplit:
        """Decode every image once; for sets of small images."""
        indices = torch.arange(len(self))
        return MemorySplit(self.pixels(indices, Augment.NONE, indices), self.labels)

    def select(self, indices: Tensor) -> "FileSplit":
        """Return a split of these images only."""
        sources = [self.sources[int(i)] for i in indices]
        return FileSplit(sources, self.decode, self.labels[indices], self.preprocessing)

    def _one(self, index: int, augment: Augment, seed: int) -> Tensor:
        image, size = self.decode(self.sources[index]), self.preprocessing.size
        generator = np.random.default_rng(seed)
        if augment is Augment.RESIZED_CROP_FLIP:
            image = image.resize((size, size), self.preprocessing.filter, box=_random_box(image, generator))
        else:
            image = fitted(image, size, self.preprocessing.resize, self.preprocessing.interpolation)
        pixels = as_pixels(image)
        return pixels.flip(2) if augment is not Augment.NONE and generator.random() < 0.5 else pixels


def as_pixels(image: Image.Image) -> Tensor:
    """Return an RGB image as uint8, (3, height, width)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _random_box(image: Image.Image, generator: np.random.Generator) -> tuple[float, float, float, float]:
    for _ in range(10):
        area = image.width * image.height * generator.uniform(0.08, 1.0)
        aspect = float(np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3))))
        width, height = (area * aspect) ** 0.5, (area / aspect) ** 0.5
        if width <= image.width and height <= image.height:
            left, top = generator.uniform(0, image.width - width), generator.uniform(0, image.height - height)
            return left, top, left + width, top + height
    return 0, 0, image.width, image.height


def pixel_split(pixels: np.ndarray, labels: Tensor, preprocessing: Preprocessing) -> MemorySplit | FileSplit:
    """Return a split of pixels in memory, uint8 (N, H, W, 3), resized where they have another size."""
    size = preprocessing.size
    if pixels.shape[1:3] == (size, size):
        return MemorySplit(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels)
    split = FileSplit(pixels, lambda source: Image.fromarray(np.asarray(source)), labels, preprocessing)
    return split.in_memory() if preprocessing.resize is None else split
