"""Open what every command works on: the run, its data, its float network and the traced graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hawq.cli.console import console, progress
from hawq.cli.training_progress import training_progress
from hawq.data import ImageData, load_data
from hawq.data.distilled import DISTILLED, distilled_data, distilled_preprocessing
from hawq.data.splits import Augment, MemorySplit
from hawq.errors import UsageError
from hawq.graph.ir import FloatGraph
from hawq.graph.trace import trace
from hawq.models import input_spec
from hawq.runs import RunDir
from hawq.train.float import FloatRequest, ensure_float

__all__ = ["NO_DATA", "DataRequest", "Session", "open_session"]

NO_DATA = "none"
"""Name of data that holds no images."""


@dataclass(frozen=True)
class DataRequest:
    """Say which images are wanted, and what of their preprocessing is overridden.

    Attributes:
        name: of the data set, or a path that is recognised by its content; `distilled` needs none, and `none` is a
            network without images.
        path: folder or file; None for the embedded digits.
        percentage: fraction of the training set that is used, 0..1.
        size: of the images in pixels.
        mean: per channel, separated by commas.
        std: per channel, separated by commas.
        interpolation: bilinear or bicubic.
    """

    name: str
    path: Path | None = None
    percentage: float = 1.0
    size: int | None = None
    mean: str | None = None
    std: str | None = None
    interpolation: str | None = None


@dataclass(frozen=True)
class Session:
    """What a command works on.

    Attributes:
        arch: name of the network.
        data: images.
        model: the float network, in evaluation mode.
        graph: its canonical graph at the size of the images.
        run: where files live.
    """

    arch: str
    data: ImageData
    model: nn.Module
    graph: FloatGraph
    run: RunDir


def open_session(
    request: FloatRequest, data: DataRequest, run_dir: Path | None = None, *, imageless: bool = False
) -> Session:
    """Load the data, get the float network (trained, if need be, on the embedded data) and trace it.

    Distilled data is made from the network, so there the network comes first.

    Args:
        request: which float network.
        data: which images.
        run_dir: where files live; None: the usual place.
        imageless: whether the command works without images.

    Raises:
        UsageError: unknown network or data, no weights, or no batch norms to distil images from.
        HawqError: weights that do not fit, a network that cannot be traced.
    """
    if data.name == NO_DATA and not imageless:
        raise UsageError(f"--data {NO_DATA} has no images; this command needs some: give --data DIR or {DISTILLED}")
    if data.name in (DISTILLED, NO_DATA):
        return _without_data(request, data, run_dir)
    images = open_data(request.arch, data, request.seed)
    run = RunDir.of(request.arch, images.name, run_dir)
    model = ensure_float(request, images, run, lambda: training_progress(f"training float {request.arch}"))
    size = images.preprocessing.size
    return Session(request.arch, images, model, trace(model, (3, size, size)), run)


def _without_data(request: FloatRequest, data: DataRequest, run_dir: Path | None) -> Session:
    run = RunDir.of(request.arch, data.name, run_dir)
    preprocessing = distilled_preprocessing(request.arch, input_spec(request.arch), _overrides(data))
    model = ensure_float(request, None, run, lambda: training_progress(f"training float {request.arch}"))
    graph = trace(model, (3, preprocessing.size, preprocessing.size))
    if data.name == NO_DATA:
        nothing = MemorySplit(
            torch.empty(0, 3, preprocessing.size, preprocessing.size, dtype=torch.uint8), torch.empty(0)
        )
        classes = graph.nodes[graph.output].shape[0]
        images = ImageData(NO_DATA, nothing, nothing, classes, preprocessing, Augment.NONE)
        return Session(request.arch, images, model, graph, run)
    with progress() as bars:
        task = bars.add_task("distilling images", total=None, status="")

        def heard(step: int, steps: int, loss: float) -> None:
            bars.update(task, completed=step, total=steps, status=f"loss {loss:.1f}")

        images = distilled_data(graph, preprocessing, run.distilled, request.seed, heard)
    console.print(f"{len(images.train)} images distilled from the weights, kept in {run.distilled}", soft_wrap=True)
    return Session(request.arch, _part(images, data, request.seed), model, graph, run)


def open_data(arch: str, data: DataRequest, seed: int) -> ImageData:
    """Return the images, prepared as the data set, the network and the overrides say, in rising order.

    Raises:
        UsageError: unknown data, or data that is made from a network's weights.
    """
    if data.name in (DISTILLED, NO_DATA):
        raise UsageError(f"--data {data.name}: this command needs real images; give --data DIR")
    return _part(load_data(data.name, data.path, spec=input_spec(arch), **_overrides(data)), data, seed)


def _part(images: ImageData, data: DataRequest, seed: int) -> ImageData:
    return images.subset(data.percentage, seed) if data.percentage < 1 else images


def _overrides(data: DataRequest) -> dict[str, Any]:
    return {
        "size": data.size,
        "mean": _numbers(data.mean, "--mean"),
        "std": _numbers(data.std, "--std"),
        "interpolation": data.interpolation,
    }


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise UsageError(f"{option} {text!r}: give three numbers, for example 0.485,0.456,0.406")
    return numbers
