"""Read the real images and weights that lie beside some checkouts, or skip with the reason."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def shared(name: str) -> Path:
    """Return a file or folder of the shared data, or skip the test."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"needs the real images and weights of ../shared/data ({name}), which this checkout lacks")
    return path


def cifar10() -> tuple[Tensor, Tensor, Tensor]:
    """Return exact CIFAR-10 pixels: train images, test images (uint8 NCHW) and test labels."""
    arrays = np.load(shared("cifar10/cifar10_lossless.npz"))
    train, test = (torch.from_numpy(arrays[key]).permute(0, 3, 1, 2).contiguous() for key in ("train_x", "test_x"))
    return train, test, torch.from_numpy(arrays["test_y"]).long()


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (p / 255 - mean) / std as float32."""
    shape = (1, -1, 1, 1)
    return (pixels.float() / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


def nips17(count: int) -> tuple[Tensor, Tensor]:
    """Return held-out ImageNet-labelled images, uint8 (N, 3, 224, 224): bicubic to 256, centre crop; and labels."""
    folder = shared("imagenet/nips17")
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[:count]
    return torch.stack([_image(folder / row["file"]) for row in rows]), torch.tensor(
        [int(r["class_index"]) for r in rows]
    )


def train1k(count: int) -> Tensor:
    """Return ImageNet training images, uint8 (N, 3, 224, 224), for calibration."""
    paths = sorted(shared("imagenet/train1k").glob("*.jpg"))[:count]
    return torch.stack([_image(path) for path in paths])


def _image(path: Path) -> Tensor:
    image = Image.open(path).convert("RGB")
    short = min(image.size)
    image = image.resize([round(side * 256 / short) for side in image.size], Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    cropped = np.asarray(image.crop((left, top, left + 224, top + 224)))
    return torch.from_numpy(cropped.copy()).permute(2, 0, 1)


def top1(logits: Tensor, labels: Tensor) -> float:
    """Return the top-1 accuracy in percent."""
    return 100 * int((logits.argmax(1) == labels).sum()) / len(labels)


def predictions(model, images: Tensor, batch: int = 100) -> Tensor:
    """Return the logits of all images."""
    with torch.no_grad():
        return torch.cat([model(images[i : i + batch]) for i in range(0, len(images), batch)])
