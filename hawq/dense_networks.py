"""Build torchvision's segmentation networks and single-shot detectors so that they return dense maps.

What follows the maps (anchors, decoding, non-maximum suppression) stays in float, outside the integer program.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD

from hawq.boxes import Detections

__all__ = ["DenseSsd", "detector_names", "segmenter", "segmenter_names"]

_HEADS: Mapping[str, Callable[[SSD], nn.Module]] = {
    "cls_logits": lambda detector: detector.head.classification_head,
    "bbox_regression": lambda detector: detector.head.regression_head,
}
"""Outputs of a detector, and the heads that make them."""


def segmenter_names() -> list[str]:
    """Return the names of the segmentation networks."""
    return models.list_models(models.segmentation)


def detector_names() -> list[str]:
    """Return the names of the single-shot detectors; two-stage ones choose regions by values in the middle."""
    return [name for name in models.list_models(models.detection) if name.startswith("ssd")]


def segmenter(name: str, **options: Any) -> nn.Module:
    """Return a segmentation network: images (N, 3, H, W) to logits of every pixel, (N, classes, H, W).

    Args:
        name: of torchvision.
        options: `weights`, `num_classes`.
    """
    model = models.get_model(name, weights_backbone=None, **options)
    model.register_forward_hook(_logits)
    return model


def _logits(module: nn.Module, inputs: tuple[Tensor], outputs: Mapping[str, Tensor]) -> Tensor:
    return outputs["out"]  # not "aux", which only training uses


class DenseSsd(nn.Module):
    """A single-shot detector (arXiv 1512.02325) up to the convolutions that end its heads.

    Its images, (N, 3, H, W), are normalised and of any size; every image shows the whole scene. It returns, for map i
    of the backbone with A_i anchors a pixel, `cls_logits.i`, (N, A_i * classes, h_i, w_i), and `bbox_regression.i`,
    (N, A_i * 4, h_i, w_i).

    Args:
        name: of torchvision.
        options: `weights`, `num_classes`.

    Attributes:
        size: (H, W) of the images seen last, in whose pixels boxes are.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        detector = models.get_model(name, weights_backbone=None, **options)
        self.backbone, self.head = detector.backbone, detector.head
        self._rest = (detector,)  # no submodule: its parameters are those above
        self.size: tuple[int, int] = detector.transform.fixed_size
        self.mean: tuple[float, ...] = tuple(detector.transform.image_mean)
        self.std: tuple[float, ...] = tuple(detector.transform.image_std)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps by name."""
        self.size = (int(images.shape[2]), int(images.shape[3]))
        features = list(self.backbone(images).values())
        return {
            f"{name}.{level}": convolution(feature)
            for name, head in _HEADS.items()
            for level, (convolution, feature) in enumerate(zip(head(self).module_list, features, strict=True))
        }

    def decode(self, outputs: Mapping[str, Tensor]) -> list[Detections]:
        """Return what maps of this network, or of a quantized one, show in each image.

        Args:
            outputs: as `forward` returns them, float32.
        """
        (detector,) = self._rest
        rows = {name: _rows(outputs, name, head(self).num_columns) for name, head in _HEADS.items()}
        maps = [value for name, value in outputs.items() if name.startswith("cls_logits.")]
        count = len(maps[0])
        images = ImageList(torch.empty((count, 3, *self.size), device="meta"), [self.size] * count)
        found = detector.postprocess_detections(rows, detector.anchor_generator(images, maps), images.image_sizes)
        return [Detections(each["boxes"], each["scores"], each["labels"]) for each in found]


def _rows(outputs: Mapping[str, Tensor], name: str, columns: int) -> Tensor:
    """Return the outputs of one head, (N, anchors, columns), map by map, pixel by pixel."""
    maps = (value for key, value in outputs.items() if key.startswith(f"{name}."))
    return torch.cat([each.permute(0, 2, 3, 1).reshape(len(each), -1, columns) for each in maps], dim=1)
