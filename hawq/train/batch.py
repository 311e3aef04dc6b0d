"""Hold images that are computed at once."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """Images and what they show.

    Attributes:
        images: float32, (N, C, H, W).
        labels: int64, (N,).
        partners: int64, (N,), labels of the images that are mixed in; None where none are.
        share: of `labels`; the rest is that of `partners`.
    """

    images: Tensor
    labels: Tensor
    partners: Tensor | None = None
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str, memory_format: torch.memory_format) -> "Batch":
        """Return the batch on a device, its images in a memory format."""
        images = self.images.to(device).contiguous(memory_format=memory_format)
        partners = None if self.partners is None else self.partners.to(device)
        return Batch(images, self.labels.to(device), partners, self.share)

    def targets(self, classes: int) -> Tensor:
        """Return the labels, or where images are mixed the share of every class, float32, (N, classes)."""
        if self.partners is None:
            return self.labels
        own, other = (F.one_hot(labels, classes).float() for labels in (self.labels, self.partners))
        return own.lerp(other, 1 - self.share)
