"""Networks with real weights and the images that benchmarks/ptq.py calibrates and tests them on."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hawq.bitconfig import BitConfig, UnitBits
from hawq.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from hawq.graph.ir import FloatGraph
from hawq.graph.structure import pinned_units
from hawq.graph.trace import trace
from hawq.images import fitted, open_image
from hawq.models import create_model
from hawq.schemes import PINNED_BITS

__all__ = ["SUBJECTS", "LabelledSet", "Subject", "scheme_bits"]

_EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
_TEN = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
"""ImageNet's numbers of Imagenette's classes."""


@dataclass(frozen=True)
class LabelledSet:
    """Images with labels.

    Attributes:
        name: in tables.
        pixels: uint8, (N, 3, H, W).
        labels: int64, (N,).
        among: logits to choose from; None: all.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    among: tuple[int, ...] | None = None

    def top1(self, logits: Tensor) -> float:
        """Return the top-1 accuracy, percent."""
        if self.among is None:
            return 100 * float((logits.argmax(1) == self.labels).float().mean())
        allowed = torch.tensor(self.among)
        return 100 * float((allowed[logits[:, allowed].argmax(1)] == self.labels).float().mean())


@dataclass(frozen=True)
class Subject:
    """A network and its images.

    Attributes:
        name: in tables.
        model: float, in evaluation mode.
        graph: of the model.
        preprocessing: of its images.
        calibration: uint8, (N, 3, H, W); none of them is tested.
        tests: what it is tested on; sets of equal pixels stand together.
    """

    name: str
    model: nn.Module
    graph: FloatGraph
    preprocessing: Preprocessing
    calibration: Tensor
    tests: tuple[LabelledSet, ...]


def scheme_bits(name: str, graph: FloatGraph) -> BitConfig:
    """Return W4A8 and the like as a bit config; first and last units have 8 bits."""
    weight, activation = (int(digits) for digits in name.removeprefix("W").split("A"))
    pinned = pinned_units(graph)
    units = {unit: PINNED_BITS if unit in pinned else UnitBits(weight, activation) for unit in graph.units}
    return BitConfig("net", name, units)


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def _pixels(files: Sequence[Path], how: Preprocessing) -> Tensor:
    images = (fitted(open_image(file), how.size, how.resize, how.interpolation) for file in files)
    return torch.from_numpy(np.stack([np.asarray(image).transpose(2, 0, 1) for image in images]))


def _imagenet(name: str, model: nn.Module, mean: float, std: float, data: Path, count: int, limit: int) -> Subject:
    how = Preprocessing(224, 256, (mean,) * 3, (std,) * 3, "bicubic")
    train, nips = data / "imagenet" / "train1k", data / "imagenet" / "nips17"
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:count]
    rows = _rows(nips)[:limit]
    tests = [LabelledSet("nips17", _pixels([nips / row["file"] for row in rows], how),
                     torch.tensor([int(row["class_index"]) for row in rows]))]  # fmt: skip
    folders = sorted((data / "imagenette" / "val").iterdir())
    found = [(file, label) for folder, label in zip(folders, _TEN, strict=True) for file in sorted(folder.iterdir())]
    found = found[:: max(1, len(found) // limit)]
    pixels, labels = _pixels([file for file, _ in found], how), torch.tensor([label for _, label in found])
    tests += [LabelledSet("imagenette", pixels, labels), LabelledSet("imagenette, 10", pixels, labels, _TEN)]
    names = sorted(train.glob("*.jpg"))
    calibration = _pixels([names[int(index)] for index in order], how)
    return Subject(name, model, trace(model, (3, 224, 224)), how, calibration, tuple(tests))


def _efficientnet_lite0(data: Path, count: int, limit: int) -> Subject:
    model = create_model("timm:tf_efficientnet_lite0")
    state: dict[str, Tensor] = torch.load(data / "weights" / "imagenet_efficientnet_lite0.pth", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))  # other keys, same order
    return _imagenet("efficientnet_lite0", model.eval(), 127 / 255, 128 / 255, data, count, limit)


def _mobilenet_v1(data: Path, count: int, limit: int) -> Subject:
    weights = data / "weights" / "imagenet_mobilenet_v1_075.pth"
    model = create_model(f"{_EXAMPLES / 'tensorflow_mobilenet.py'}:mobilenet_v1_075", weights=weights)
    return _imagenet("mobilenet_v1_075", model, 0.5, 0.5, data, count, limit)


def _cifar10(depth: int) -> Callable[[Path, int, int], Subject]:
    def build(data: Path, count: int, limit: int) -> Subject:
        weights = data / "weights" / f"cifar10_resnet{depth}_pytorchcv.pth"
        model = create_model(f"resnet{depth}_cifar10", weights=weights)
        arrays: Any = np.load(data / "cifar10" / "cifar10_lossless.npz")
        train, test = (torch.from_numpy(arrays[key]).permute(0, 3, 1, 2).contiguous() for key in ("train_x", "test_x"))
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:count]
        tests = (LabelledSet("cifar10", test[:limit], torch.from_numpy(arrays["test_y"])[:limit].long()),)
        how = Preprocessing(32, None, IMAGENET_MEAN, IMAGENET_STD)
        return Subject(f"resnet{depth}_cifar10", model, trace(model, (3, 32, 32)), how, train[order], tests)

    return build


SUBJECTS: dict[str, Callable[[Path, int, int], Subject]] = {
    "efficientnet_lite0": _efficientnet_lite0,
    "mobilenet_v1_075": _mobilenet_v1,
    "resnet20_cifar10": _cifar10(20),
    "resnet56_cifar10": _cifar10(56),
}
"""Builders by name: of the folder of images and weights, calibration images, and test images of a set at most."""
