"""Declare the options that several commands share, each once."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "ArchOption",
    "BatchSizeOption",
    "DataOption",
    "DataPathOption",
    "DeviceOption",
    "JsonOption",
    "PretrainedOption",
    "RunDirOption",
    "SchemeOption",
    "SeedOption",
    "WeightsOption",
]

DEFAULT_ARCH = "resnet20_cifar10"
DEFAULT_DATA = "digits"
DEFAULT_SCHEME = "bops0.5"

ArchOption = Annotated[
    str,
    typer.Option(
        "--arch", "-a",
        help="Network: a pytorchcv name, torchvision:NAME, timm:NAME or path/to/file.py:factory.",
    ),
]  # fmt: skip
DataOption = Annotated[
    str, typer.Option("--data", help="Data set: digits (embedded), cifar10, cifar100, npz or imagefolder.")
]
DataPathOption = Annotated[
    Path | None, typer.Option("--data-path", help="Folder or .npz file of the data set; digits needs none.")
]
RunDirOption = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run's files live.", show_default="runs/<arch>-<data>")
]
SchemeOption = Annotated[
    str,
    typer.Option("--quant-scheme", "--scheme", help="Bit config: uniform8, uniform4, a searched name or a .json file."),
]
PretrainedOption = Annotated[bool, typer.Option("--pretrained", help="Download the library's pretrained weights.")]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", help="Float weights: a .safetensors file, or a .pth state dict.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of every random choice.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images per batch.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Put one JSON document on stdout.")]
