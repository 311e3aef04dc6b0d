"""Collect statistics of a float network's tensors once, and find ranges from them without images."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from hawq.errors import HawqError, UsageError
from hawq.files import read_json, read_tensors, write_json, write_tensors
from hawq.graph import ir
from hawq.graph.identity import identity
from hawq.graph.interpret import run_float
from hawq.qat.model import QuantizedModel
from hawq.quantizers.percentile import thinned

__all__ = ["Statistics", "Summary", "find_ranges"]

_FORMAT, _VERSION = "hawq-statistics", 1
_SAMPLE = 1 << 16


@dataclass(frozen=True)
class Summary:
    """Say where the values of one tensor lie.

    Attributes:
        low: the least value.
        high: the largest.
        mean: of all values.
        std: of all values.
        spread: mean |x - mean| of the sample, b of a Laplace density.
        values: how many there were.
    """

    low: float
    high: float
    mean: float
    std: float
    spread: float
    values: int


@dataclass(frozen=True)
class Statistics:
    """Statistics of every tensor of a float network.

    A tensor's sample stands for it wherever a range is sought: about 65,000 values, evenly spaced over all images, and
    the two extremes. So every range rule works from statistics, those with running means as if all images were one
    batch.

    Attributes:
        network: `identity` of the network.
        images: how many were seen.
        summaries: by tensor.
        samples: by tensor, float32, (n,).
    """

    network: str
    images: int
    summaries: Mapping[str, Summary]
    samples: Mapping[str, Tensor]

    @classmethod
    @torch.no_grad()
    def collect(cls, graph: ir.FloatGraph, batches: Sequence[Tensor]) -> "Statistics":
        """Run a float network on images; memory is that of its tensors for one batch, and of the samples.

        Args:
            graph: the float network.
            batches: float32, (N, C, H, W).

        Raises:
            HawqError: no images, or a tensor that is not finite.
        """
        images = sum(len(batch) for batch in batches)
        if not images:
            raise HawqError("statistics need at least one image; given none")
        found: dict[str, _Running] = {name: _Running(images) for name in graph.nodes}
        for batch in batches:
            for name, value in run_float(graph, batch).items():
                found[name].add(value)
        for name, running in found.items():
            if not math.isfinite(running.total) or not math.isfinite(running.squares):
                raise HawqError(f"{name} is not finite in float; check the weights and the images for NaN or infinity")
        summaries, samples = zip(*(running.finish() for running in found.values()), strict=True)
        return cls(identity(graph), images, dict(zip(found, summaries, strict=True)),
                   dict(zip(found, samples, strict=True)))  # fmt: skip

    @classmethod
    def kept(cls, path: Path, graph: ir.FloatGraph, images: Callable[[], Sequence[Tensor]]) -> "Statistics":
        """Return the statistics of a file, or collect them and write the file where there is none.

        Args:
            path: as for `save`.
            graph: the float network.
            images: returns batches; called only where there is no file.

        Raises:
            UsageError: the file holds those of another network.
            HawqError: the file is torn; or as `collect` says.
        """
        if not path.exists():
            found = cls.collect(graph, images())
            found.save(path)
            return found
        found = cls.load(path)
        if found.network != identity(graph):
            raise UsageError(
                f"{path} holds statistics of another network, of other weights or before methods that change the float "
                "network; name another file to collect them into"
            )
        return found

    def save(self, path: Path) -> None:
        """Write `<path>` (JSON), and the samples beside it as `.safetensors`."""
        write_tensors(path.with_suffix(".safetensors"), self.samples)
        tensors = {name: asdict(summary) for name, summary in self.summaries.items()}
        write_json(path, _FORMAT, _VERSION, {"network": self.network, "images": self.images, "tensors": tensors})

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read statistics written by `save`.

        Raises:
            UsageError: a file is missing.
            HawqError: a file is torn or of another format, or both do not go together.
        """
        document, samples = read_json(path, _FORMAT, _VERSION), read_tensors(path.with_suffix(".safetensors"))
        try:
            summaries = {name: Summary(**entry) for name, entry in document["tensors"].items()}
            found = cls(str(document["network"]), int(document["images"]), summaries, samples)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HawqError(f"{path} holds no complete statistics ({error!r}); delete it to collect anew") from error
        if summaries.keys() != samples.keys():
            raise HawqError(f"{path} and its samples name different tensors; delete both to collect them anew")
        return found


class _Running:
    """Take in a tensor batch by batch."""

    def __init__(self, images: int) -> None:
        self._images = images
        self.low, self.high, self.total, self.squares, self.values = math.inf, -math.inf, 0.0, 0.0, 0
        self._parts: list[Tensor] = []

    def add(self, value: Tensor) -> None:
        low, high = torch.aminmax(value)
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        self.total += float(value.sum(dtype=torch.float64))
        self.squares += float(value.double().square().sum())
        self.values += value.numel()
        self._parts.append(thinned(value, max(1, _SAMPLE * len(value) // self._images)).clone())

    def finish(self) -> tuple[Summary, Tensor]:
        sample = torch.cat([*self._parts, torch.tensor([self.low, self.high])])
        mean = self.total / self.values
        std = math.sqrt(max(self.squares / self.values - mean**2, 0.0))
        spread = float((sample[:-2].double() - mean).abs().mean())
        return Summary(self.low, self.high, mean, std, spread, self.values), sample


@torch.no_grad()
def find_ranges(model: QuantizedModel, statistics: Statistics) -> None:
    """Calibrate a model on the statistics of its float network in place of images.

    Ranges are those of the float network's tensors; images would show every tensor as the quantized units before it
    make it.

    Args:
        model: of the network whose statistics they are.
        statistics: of its graph.
    """
    values, reads = dict(statistics.samples), dict[str, Tensor]()
    with model.calibrating():
        for node in model.graph.nodes.values():
            model.keep(node.name, values[node.name])
            match node.op:
                case ir.Conv2d() | ir.Linear() | ir.Unary():
                    model.reading(node.inputs[0], values, reads)
                case ir.Mul():
                    model.reading(node.inputs[1], values, reads)
