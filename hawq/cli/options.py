"""Declare the options that several commands share, each once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from hawq.errors import UsageError

__all__ = [
    "DEFAULT_ARCH",
    "DEFAULT_DATA",
    "DEFAULT_METRIC",
    "DEFAULT_SCHEME",
    "AgreementOption",
    "ArchOption",
    "BatchSizeOption",
    "DataOption",
    "DataPathOption",
    "DeviceOption",
    "ForeignTableOption",
    "InterpolationOption",
    "JsonOption",
    "LatencyTableOption",
    "MeanOption",
    "MeasuredThreadsOption",
    "MetricOption",
    "NetworkOption",
    "NumClassesOption",
    "PretrainedOption",
    "RelErrorOption",
    "RunDirOption",
    "SchemeOption",
    "SeedOption",
    "SensitivityImagesOption",
    "SizeOption",
    "StatsOption",
    "StdOption",
    "TargetOption",
    "ThreadsOption",
    "WeightsOption",
    "WorkersOption",
    "following",
    "parse_batch",
    "parse_widths",
]

DEFAULT_ARCH = "resnet20_cifar10"
DEFAULT_DATA = "digits"
DEFAULT_SCHEME = "bops0.5"
DEFAULT_METRIC = "jacobian"

_FLOAT, _DATA, _SENSITIVITY, _COSTS = "Float network", "Data", "Sensitivity", "Costs"

ArchOption = Annotated[
    str,
    typer.Option(
        "--arch", "-a",
        help="Network: a pytorchcv name, torchvision:NAME, timm:NAME or path/to/file.py:factory.",
        rich_help_panel=_FLOAT,
    ),
]  # fmt: skip
NetworkOption = Annotated[
    str, typer.Option("-a", "--network", help="Network, as for the other commands.", rich_help_panel=_FLOAT)
]
"""The network where `--arch` names the GPU architecture."""
PretrainedOption = Annotated[
    bool, typer.Option("--pretrained", help="Download the library's weights.", rich_help_panel=_FLOAT)
]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Float weights: .safetensors, or a .pth state dict.", rich_help_panel=_FLOAT),
]
NumClassesOption = Annotated[
    int | None,
    typer.Option(
        "--num-classes",
        min=1,
        help="Classes of the network.",
        show_default="the library's with given weights, else the data's",
        rich_help_panel=_FLOAT,
    ),
]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="digits (embedded), cifar10, cifar100, npz, imagefolder, voc, a path, or distilled (from the weights).",
        rich_help_panel=_DATA,
    ),
]
DataPathOption = Annotated[
    Path | None,
    typer.Option("--data-path", help="Folder or .npz file of the data; digits needs none.", rich_help_panel=_DATA),
]
SizeOption = Annotated[int | None, typer.Option("--size", min=1, help="Image size in pixels.", rich_help_panel=_DATA)]
MeanOption = Annotated[
    str | None, typer.Option("--mean", help="Mean per channel: 0.485,0.456,0.406.", rich_help_panel=_DATA)
]
StdOption = Annotated[str | None, typer.Option("--std", help="Standard deviation per channel.", rich_help_panel=_DATA)]
InterpolationOption = Annotated[
    str | None, typer.Option("--interpolation", help="bilinear or bicubic.", rich_help_panel=_DATA)
]
WorkersOption = Annotated[
    int, typer.Option("--workers", "-j", min=0, help="Threads that decode images.", rich_help_panel=_DATA)
]
RunDirOption = Annotated[
    Path | None,
    typer.Option("--run-dir", "--save-path", help="Where the run's files live.", show_default="runs/<arch>-<data>"),
]
SchemeOption = Annotated[
    str,
    typer.Option("--quant-scheme", "--scheme", help="uniform8, uniform4, a searched or published scheme, or a .json."),
]
StatsOption = Annotated[
    Path | None,
    typer.Option(
        "--stats",
        help="Statistics of the float network, a .json: find ranges from them; collected where it is missing.",
    ),
]
TargetOption = Annotated[str, typer.Option("--target", help="llvm (CPU) or cuda.")]
MeasuredThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="CPU threads to measure with.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads of the library.", show_default="one a core")
]
MetricOption = Annotated[
    str,
    typer.Option(
        "--metric",
        help="jacobian, quadratic, hessian, hessian-activations, fisher, kl, loss, sqnr, eigenvalue or hutchinson.",
        rich_help_panel=_SENSITIVITY,
    ),
]
RelErrorOption = Annotated[
    float,
    typer.Option(
        "--rel-error", min=0.0, help="Stop only when shares are known this well.", rich_help_panel=_SENSITIVITY
    ),
]
AgreementOption = Annotated[
    float,
    typer.Option(
        "--agreement",
        min=0.0,
        max=1.0,
        help="Stop only when this share of the resamples gives the same scheme.",
        rich_help_panel=_SENSITIVITY,
    ),
]
SensitivityImagesOption = Annotated[
    int, typer.Option("--images", min=1, help="Training images at most.", rich_help_panel=_SENSITIVITY)
]
LatencyTableOption = Annotated[
    Path | None,
    typer.Option("--latency-table", help="Latencies that `hawq profile` measured.", rich_help_panel=_COSTS),
]
ForeignTableOption = Annotated[
    bool, typer.Option("--foreign-table", help="Allow a table of another device.", rich_help_panel=_COSTS)
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of every random choice.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images per batch.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Put one JSON document on stdout.")]


def following(command: str, given: Mapping[str, object]) -> str:
    """Return the command that goes on from this one: options with their values, the usual ones left out."""
    usual = {"-a": DEFAULT_ARCH, "--data": DEFAULT_DATA, "--quant-scheme": DEFAULT_SCHEME}
    words = (f"{option} {value}" for option, value in given.items() if value not in (None, usual.get(option)))
    return " ".join([command, *words])


def parse_batch(text: str) -> int | None:
    """Return the images per call that `--batch-size` names, None for any number.

    Raises:
        UsageError: it is neither a positive number nor `any`.
    """
    if text == "any":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size {text!r}: give a number of images, at least 1, or any")
    return int(text)


def parse_widths(text: str) -> tuple[int, ...]:
    """Return the widths that `--bits` names, in ascending order.

    Raises:
        UsageError: it is no list of widths of 2..8.
    """
    try:
        widths = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        widths = ()
    if not widths or not 2 <= widths[0] <= widths[-1] <= 8:
        raise UsageError(f"--bits {text!r}: give widths of 2..8 separated by commas, for example 2,4,8")
    return widths
