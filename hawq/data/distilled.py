"""Images made from a network's own batch norms, for those who have its weights but no data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hawq.data.image_data import ImageData
from hawq.data.preprocessing import CROP_RATIO, IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Preprocessing
from hawq.data.splits import Augment, MemorySplit
from hawq.distill import QUICK, Progress, distill, silent
from hawq.errors import HawqError, UsageError
from hawq.files import read_tensors, write_tensors
from hawq.graph.identity import identity
from hawq.graph.interpret import run_float
from hawq.graph.ir import FloatGraph

__all__ = ["DISTILLED", "distilled_data", "distilled_preprocessing"]

DISTILLED = "distilled"
_COUNT, _BATCH, _SMALL = 64, 16, 64


def distilled_preprocessing(arch: str, spec: ModelSpec, overrides: Mapping[str, Any]) -> Preprocessing:
    """Return how pixels become the network's input, from what the network knows and the user says.

    Raises:
        UsageError: nobody knows the size of the images.
    """
    size = overrides.get("size") or spec.size
    if size is None:
        raise UsageError(f"{arch} does not tell the size of its images; give --size")
    resize = None if size <= _SMALL else round(size / (spec.crop_ratio or CROP_RATIO))
    return Preprocessing(size, resize, IMAGENET_MEAN, IMAGENET_STD).refined(spec, overrides)


def distilled_data(
    graph: FloatGraph,
    preprocessing: Preprocessing,
    cache: Path,
    seed: int = 0,
    progress: Progress = silent,
) -> ImageData:
    """Return 64 distilled images, rounded to pixels, with the network's own predictions as labels.

    The images serve as training and as test images.

    Args:
        graph: the float network.
        preprocessing: how pixels become its input.
        cache: file the images are kept in; those of other weights or another recipe are made anew.
        seed: of the first images.
        progress: told after every step, as `distill` does.

    Raises:
        UsageError: the network has no batch norm.
        HawqError: distilling diverged.
    """
    key = identity(graph, DISTILLED, _COUNT, _BATCH, QUICK, preprocessing, seed)
    found = _kept(cache, key)
    if found is None:
        images = _pixels(graph, preprocessing, seed, progress)
        found = {"images": images, "labels": _predictions(graph, preprocessing, images), "key": _bytes(key)}
        write_tensors(cache, found)
    split = MemorySplit(found["images"], found["labels"])
    classes = graph.nodes[graph.output].shape[0]
    return ImageData(DISTILLED, split, split, classes, preprocessing, Augment.NONE)


def _pixels(graph: FloatGraph, preprocessing: Preprocessing, seed: int, progress: Progress) -> Tensor:
    """Return images, uint8, (N, 3, size, size)."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    bounds = (-mean / std, (1 - mean) / std)
    images = distill(graph, _COUNT, QUICK, batch_size=_BATCH, seed=seed, bounds=bounds, progress=progress)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def _predictions(graph: FloatGraph, preprocessing: Preprocessing, images: Tensor) -> Tensor:
    chunks = (preprocessing.normalise(chunk) for chunk in images.split(_BATCH))
    return torch.cat([run_float(graph, chunk)[graph.output].argmax(1) for chunk in chunks])


def _kept(cache: Path, key: str) -> dict[str, Tensor] | None:
    try:
        found = read_tensors(cache)
    except HawqError:
        return None  # none yet, or a torn one: it is written again
    known = "key" in found and torch.equal(found["key"], _bytes(key))
    return found if known else None


def _bytes(key: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(key)), dtype=torch.uint8)
