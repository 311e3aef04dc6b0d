"""Get the float network of a run: given, downloaded, found from before, or trained on the embedded data."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hawq.data import ImageData
from hawq.errors import UsageError
from hawq.files import read_json, write_json, write_tensors
from hawq.models import create_model
from hawq.runs import RunDir
from hawq.train.feed import Feed
from hawq.train.recipes import float_recipe
from hawq.train.state import Listener
from hawq.train.trainer import Forget, Trainer

__all__ = ["FloatRequest", "ensure_float", "train_float"]

_FORMAT, _VERSION = "hawq-float", 1


@dataclass(frozen=True)
class FloatRequest:
    """Say which float network is wanted.

    Attributes:
        arch: as given to `-a`.
        num_classes: None for the library's own number where weights are given or downloaded, the data's otherwise.
        pretrained: download the library's weights.
        weights: a file of weights.
        seed: of training, where the network has to be trained.
    """

    arch: str
    num_classes: int | None = None
    pretrained: bool = False
    weights: Path | None = None
    seed: int = 0


def ensure_float(request: FloatRequest, data: ImageData | None, run: RunDir, progress: Callable[[], Any]) -> nn.Module:
    """Return the float network in evaluation mode; its weights are kept in the run for the commands that follow.

    Args:
        request: what is wanted.
        data: to train on, if it comes to that; None where there is none.
        run: where `float.safetensors` lies.
        progress: returns a context manager that gives a Listener, opened only if the network is trained.

    Raises:
        UsageError: there is no network and none can be trained for this data.
        HawqError: the weights do not fit.
    """
    if request.pretrained or request.weights is not None:
        model = create_model(
            request.arch, num_classes=request.num_classes, pretrained=request.pretrained, weights=request.weights
        )
        _keep(model, request, run, str(request.weights or "pretrained"), request.num_classes)
    elif run.float_weights.is_file():
        note = read_json(_note(run), _FORMAT, _VERSION)
        model = create_model(request.arch, num_classes=note["num_classes"], weights=run.float_weights)
    elif data is not None and float_recipe(data.name, request.seed) is not None:
        with progress() as heard:
            model = train_float(request, data, heard)
        _keep(model, request, run, f"trained on {data.name}", request.num_classes or data.num_classes)
    else:
        raise UsageError(
            f"there is no float network for this run ({run.float_weights} does not exist): give its weights with "
            "--weights FILE (.safetensors or .pth), or --pretrained to download the library's"
        )
    return model.eval()


def train_float(request: FloatRequest, data: ImageData, heard: Listener) -> nn.Module:
    """Train the network on the data set from a random start.

    Raises:
        UsageError: there is no recipe for this data set.
    """
    config = float_recipe(data.name, request.seed)
    if config is None:
        raise UsageError(f"there is no recipe to train a float network on {data.name}; give --weights or --pretrained")
    torch.manual_seed(config.seed)  # the libraries initialise from the global generator
    model = create_model(request.arch, num_classes=request.num_classes or data.num_classes)
    Trainer(model, Feed(data, config)).run(Forget(), [heard])
    return model


def _keep(model: nn.Module, request: FloatRequest, run: RunDir, source: str, num_classes: int | None) -> None:
    write_tensors(run.float_weights, model.state_dict())
    note = {"arch": request.arch, "num_classes": num_classes, "source": source}
    write_json(_note(run), _FORMAT, _VERSION, note)


def _note(run: RunDir) -> Path:
    return run.float_weights.with_suffix(".json")
