"""Write a tiny VOC folder, and the source of networks that read it."""

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("2007_000001", "2007_000002", "2007_000003", "2007_000004")
"""The first two are to train on, the others to test on."""

WIDTH, HEIGHT = 40, 20

NETWORKS = '''
import torch
from torch import nn

from hawq.boxes import Detections


class Segmenter(nn.Module):
    """Logits of 21 classes at half the size."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Conv2d(8, 21, 1)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


class Detector(Segmenter):
    """Says of every image that its left half is the class its logits are highest for, and its right half a car."""

    def decode(self, outputs):
        boxes = torch.tensor([[0.0, 0.0, 8.0, 16.0], [8.0, 0.0, 16.0, 16.0]])
        best = outputs.mean((2, 3)).argmax(1)
        return [Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([int(label), 7])) for label in best]


def segmenter():
    return Segmenter()


def detector():
    return Detector()
'''


def annotation(*objects: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    """Return the text of an XML file."""
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{''.join(objects)}</annotation>"


def entry(name: str, *box: float, difficult: str = "<difficult>0</difficult>", part: str = "") -> str:
    """Return an object's part of an XML file; its box counts pixels from 1."""
    edges = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{difficult}{part}<bndbox>{edges}</bndbox></object>"


def voc_tree(place: Path) -> Path:
    """Write four images of one colour, whose left half is an aeroplane, a bicycle, a bird or a boat."""
    root = place / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for index, name in enumerate(NAMES):
        Image.new("RGB", (WIDTH, HEIGHT), (60 * index, 0, 0)).save(root / "JPEGImages" / f"{name}.jpg")
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[:, : WIDTH // 2] = index + 1
        mask[: HEIGHT // 2, WIDTH // 2 :] = 255
        image = Image.fromarray(mask, "P")
        image.putpalette([(index + channel) % 256 for index in range(256) for channel in range(3)])
        image.save(root / "SegmentationClass" / f"{name}.png")
        kind = ("aeroplane", "bicycle", "bird", "boat")[index]
        (root / "Annotations" / f"{name}.xml").write_text(annotation(entry(kind, 1, 1, WIDTH // 2, HEIGHT)))
    for kind in ("Segmentation", "Main"):
        (root / "ImageSets" / kind / "train.txt").write_text("\n".join(NAMES[:2]) + "\n")
        (root / "ImageSets" / kind / "val.txt").write_text("\n".join(NAMES[2:]) + "\n")
    return root
