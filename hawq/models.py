"""Create float networks by name, and load their weights."""

import difflib
import importlib.util
import inspect
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from hawq.errors import HawqError, UsageError
from hawq.files import read_tensors
from hawq.state_dicts import copy_state, plain_name, read_torch_file, state_dict_of
from hawq.task import Task

__all__ = ["InputSpec", "create_model", "input_spec", "load_weights"]


@dataclass(frozen=True)
class InputSpec:
    """What a library knows of a network; None where it says nothing.

    Attributes:
        size: of the square image, pixels.
        mean: per channel, of pixels scaled to 0..1.
        std: per channel.
        interpolation: bilinear or bicubic.
        crop_ratio: centre crop over shorter side.
        task: what the network is for.
    """

    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    crop_ratio: float | None = None
    task: Task | None = None


class Source(ABC):
    """A library of networks. `build` returns one, `spec` what is known of its input."""

    name: str

    @abstractmethod
    def build(self, name: str, num_classes: int | None, pretrained: bool) -> nn.Module:
        """Return the network `name`, with the library's number of classes where none is given."""

    def spec(self, name: str) -> InputSpec:
        """Return what is known of the input of `name`."""
        return InputSpec()


_SOURCES: dict[str, Source] = {}


def _register(cls: type[Source]) -> type[Source]:
    _SOURCES[cls.name] = cls()
    return cls


def _classes(num_classes: int | None) -> dict[str, int]:
    return {} if num_classes is None else {"num_classes": num_classes}


def _check_name(name: str, known: list[str], library: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5)
        hint = f"; similar: {', '.join(near)}" if near else ""
        raise UsageError(f"{library} has no network {name!r}{hint}. Other sources: torchvision:NAME, timm:NAME, "
                         "path/to/file.py:factory")  # fmt: skip


@_register
class PytorchCv(Source):
    """pytorchcv, whose names need no prefix."""

    name = "pytorchcv"

    def build(self, name: str, num_classes: int | None, pretrained: bool) -> nn.Module:
        """Return the network `name`."""
        from pytorchcv.model_provider import _models, get_model

        _check_name(name, list(_models), self.name)
        try:
            return get_model(name, pretrained=pretrained, **_classes(num_classes))
        except ImportError as error:  # networks for sound need packages of their own
            raise UsageError(f"pytorchcv's {name} needs a package that is not installed: {error}") from error
        except AssertionError as error:  # its CIFAR networks insist on 10 or 100 classes
            raise UsageError(
                f"pytorchcv's {name} refuses num_classes={num_classes}; take a network whose number is free, such as "
                "one without a data set in its name, or write a factory: path/to/file.py:factory"
            ) from error

    def spec(self, name: str) -> InputSpec:
        """Return the size the network was made for."""
        with torch.device("meta"):  # the shape of the network, without its weights
            size = getattr(self.build(name, None, False), "in_size", (224, 224))
        return InputSpec(size=size[0])


@_register
class Torchvision(Source):
    """torchvision's networks for classification, segmentation and, single-shot ones, detection."""

    name = "torchvision"

    @staticmethod
    def _task(name: str) -> Task:
        from torchvision import models

        from hawq.dense_networks import detector_names, segmenter_names

        if name in segmenter_names():
            return Task.SEGMENTATION
        if name in detector_names():
            return Task.DETECTION
        _check_name(name, [*models.list_models(models), *segmenter_names(), *detector_names()], Torchvision.name)
        return Task.CLASSIFICATION

    def build(self, name: str, num_classes: int | None, pretrained: bool) -> nn.Module:
        """Return the network `name`."""
        from torchvision import models

        from hawq.dense_networks import DenseSsd, segmenter

        options: dict[str, Any] = {"weights": "DEFAULT" if pretrained else None, **_classes(num_classes)}
        match self._task(name):
            case Task.SEGMENTATION:
                return segmenter(name, **options)
            case Task.DETECTION:
                return DenseSsd(name, **options)
        # GoogLeNet and Inception have auxiliary heads that only training uses
        extra = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return models.get_model(name, **({} if pretrained else extra), **options)

    def spec(self, name: str) -> InputSpec:
        """Return what the newest weights' preprocessing says, or the detector itself."""
        from torchvision import models

        task = self._task(name)
        if task is Task.DETECTION:
            with torch.device("meta"):
                detector: Any = self.build(name, None, False)
            return InputSpec(detector.size[0], detector.mean, detector.std, task=task)
        preset = models.get_model_weights(name).DEFAULT.transforms()
        if task is Task.SEGMENTATION:
            (size,) = preset.resize_size
            return InputSpec(size, tuple(preset.mean), tuple(preset.std), preset.interpolation.value, task=task)
        ratio = preset.crop_size[0] / preset.resize_size[0]
        return InputSpec(preset.crop_size[0], tuple(preset.mean), tuple(preset.std), preset.interpolation.value, ratio)


@_register
class Timm(Source):
    """timm, an extra."""

    name = "timm"

    @staticmethod
    def _library() -> Any:
        try:
            import timm
        except ImportError as error:
            raise UsageError("timm: networks need the package timm: pip install 'hawq[timm]'") from error
        return timm

    def build(self, name: str, num_classes: int | None, pretrained: bool) -> nn.Module:
        """Return the network `name`."""
        timm = self._library()
        _check_name(name.split(".")[0], timm.list_models(), self.name)
        return timm.create_model(name, pretrained=pretrained, **_classes(num_classes))

    def spec(self, name: str) -> InputSpec:
        """Return timm's pretrained configuration."""
        timm = self._library()
        _check_name(name.split(".")[0], timm.list_models(), self.name)
        config = timm.models.get_pretrained_cfg(name)
        if config is None:
            return InputSpec()
        return InputSpec(
            config.input_size[-1], tuple(config.mean), tuple(config.std), config.interpolation, config.crop_pct
        )


@_register
class File(Source):
    """A function of the user's own: path/to/file.py:factory."""

    name = "file"

    def build(self, name: str, num_classes: int | None, pretrained: bool) -> nn.Module:
        """Call the factory; `num_classes` and `pretrained` are passed on where it takes them.

        Raises:
            UsageError: there is no such file or function, or it cannot do what is asked.
        """
        path, _, function = name.rpartition(":")
        factory = getattr(_run_file(Path(path)), function, None)
        if not callable(factory):
            raise UsageError(f"{path} has no function {function!r}")
        parameters = inspect.signature(factory).parameters.values()
        names = {parameter.name for parameter in parameters}
        takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
        if pretrained and not (takes_any or "pretrained" in names):
            raise UsageError(f"{name} takes no argument `pretrained`; give its weights with --weights FILE")
        wanted = {**_classes(num_classes), **({"pretrained": True} if pretrained else {})}
        model = factory(**{key: value for key, value in wanted.items() if takes_any or key in names})
        if not isinstance(model, nn.Module):
            raise UsageError(f"{name} returned {type(model).__name__}, not a torch.nn.Module")
        return model


def _run_file(path: Path) -> ModuleType:
    """Import a user's file by its path."""
    if not path.is_file() or path.suffix != ".py":
        raise UsageError(f"{path} is no Python file; networks of your own are given as path/to/file.py:factory")
    spec = importlib.util.spec_from_file_location(f"hawq_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported; networks of your own are given as path/to/file.py:factory")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up there
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, NameError) as error:
        raise UsageError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _source(arch: str) -> tuple[Source, str]:
    prefix, colon, rest = arch.partition(":")
    if colon and prefix in _SOURCES:
        return _SOURCES[prefix], rest
    if colon and prefix.endswith(".py"):
        return _SOURCES["file"], arch
    if colon:
        raise UsageError(f"unknown source {prefix!r} in {arch!r}; allowed are torchvision:, timm: and FILE.py:")
    return _SOURCES["pytorchcv"], arch


def create_model(
    arch: str, *, num_classes: int | None = None, pretrained: bool = False, weights: Path | None = None
) -> nn.Module:
    """Return a float network in evaluation mode.

    Args:
        arch: a pytorchcv name, `torchvision:NAME`, `timm:NAME` or `path/to/file.py:factory`.
        num_classes: the library's own number by default.
        pretrained: download the library's weights.
        weights: load this file instead.

    Raises:
        UsageError: no such network or file.
        HawqError: the download failed, or the weights do not fit.
    """
    source, name = _source(arch)
    try:
        model = source.build(name, num_classes, pretrained)
    except (OSError, RuntimeError, ValueError) as error:
        if not pretrained:
            raise
        raise HawqError(
            f"the pretrained weights of {arch} could not be had ({error}); download them yourself (or train some) and "
            "give the file with --weights FILE"
        ) from error
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def input_spec(arch: str) -> InputSpec:
    """Return what the library of a network knows of its input."""
    source, name = _source(arch)
    return source.spec(name)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a .safetensors file, or a .pth file that holds a state dict, bare or under `state_dict`.

    Containers of DataParallel and torch.compile in the names make no difference.

    Raises:
        UsageError: no such file.
        HawqError: the file is torn, holds more than tensors, does not fit, or holds NaN or infinity.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        state = {plain_name(name): tensor for name, tensor in read_tensors(path).items()}
    else:
        state = state_dict_of(read_torch_file(path), path)
    copy_state({plain_name(name): tensor for name, tensor in model.state_dict().items()}, state, path)
