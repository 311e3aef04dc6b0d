"""Hold in one place how pixels become a network's input."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from hawq.errors import HawqError, UsageError
from hawq.images import FILTERS
from hawq.task import Task

__all__ = ["CROP_RATIO", "IMAGENET_MEAN", "IMAGENET_STD", "ModelSpec", "Preprocessing"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP_RATIO = 0.875
"""Centre crop over shorter side: 224 of 256, 299 of 342."""


class ModelSpec(Protocol):
    """What is known of a network's input, and what it is for; None where nothing is."""

    size: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    interpolation: str | None
    crop_ratio: float | None
    task: Task | None


@dataclass(frozen=True)
class Preprocessing:
    """Say how an image becomes a tensor.

    Attributes:
        size: of the square image, pixels.
        resize: length of the shorter side before the centre crop; None where images have the right size already.
        mean: per channel, of pixels scaled to 0..1.
        std: per channel.
        interpolation: bilinear or bicubic.
    """

    size: int
    resize: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            UsageError: an unknown interpolation, a size below 1, or a std that is not positive.
        """
        if self.interpolation not in FILTERS:
            raise UsageError(f"interpolation {self.interpolation!r}: allowed are {', '.join(FILTERS)}")
        if self.size < 1 or (self.resize is not None and self.resize < self.size):
            raise UsageError(
                f"size {self.size}, resized to {self.resize}: give 1 pixel or more, a crop no larger than the image"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UsageError(f"mean {self.mean} and std {self.std}: give three numbers each, std above 0")

    @property
    def filter(self) -> Image.Resampling:
        """Pillow's name of the interpolation."""
        return FILTERS[self.interpolation]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return (p / 255 - mean) / std, float32, of uint8 pixels, (N, 3, H, W)."""
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std

    @property
    def value_range(self) -> tuple[float, float]:
        """Lowest and highest value of any image."""
        ends = self.normalise(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1))
        return float(ends.min()), float(ends.max())

    def refined(self, spec: ModelSpec | None, overrides: Mapping[str, Any]) -> "Preprocessing":
        """Return this with what the network knows, then what the user says (None: nothing)."""
        known = {} if spec is None else {k: getattr(spec, k) for k in ("size", "mean", "std", "interpolation")}
        chosen = {**_given(known), **_given(overrides)}
        if self.resize is not None:
            ratio = (spec.crop_ratio if spec is not None else None) or CROP_RATIO
            chosen["resize"] = round(chosen.get("size", self.size) / ratio)
        return replace(self, **chosen)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Preprocessing":
        """Return what `to_json` described.

        Raises:
            HawqError: a field is missing, unknown or of another kind.
            UsageError: a field has a value that is not allowed.
        """
        try:
            return cls(**{**document, "mean": tuple(document["mean"]), "std": tuple(document["std"])})
        except (KeyError, TypeError) as error:
            names = ", ".join(field.name for field in fields(cls))
            raise HawqError(
                f"preprocessing {dict(document)} is not understood ({error!r}); its fields are {names}"
            ) from error


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
