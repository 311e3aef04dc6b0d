"""Hold what post-training methods work on, one after another."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor

from hawq.bitconfig import BitConfig
from hawq.errors import UsageError
from hawq.graph.ir import FloatGraph
from hawq.ptq.gaussians import Moments, normalised
from hawq.ptq.ranges import expected_ranges, set_ranges
from hawq.ptq.registry import Method, Stage
from hawq.ptq.statistics import Statistics, find_ranges
from hawq.qat.fold import norm_state
from hawq.qat.model import QuantizedModel
from hawq.qat.rewrites import folded_graph
from hawq.quantizers import QuantOptions

__all__ = ["Progress", "Ranges", "Settings", "Workbench", "silent"]

Progress = Callable[[str, int, int, str], None]
"""Told what is done, how many steps of how many are, and how it stands."""

Images = Callable[[], Iterable[Tensor]]
"""Yields the same batches of float32 images, (N, C, H, W), every time it is called."""

StatisticsOf = Callable[[FloatGraph], Statistics]
"""Returns the statistics of the network that it is given."""


def silent(what: str, done: int, total: int, status: str) -> None:
    """Show no progress."""


class Ranges(Enum):
    """Say where ranges of activations come from; without images and their statistics from moments in any case."""

    IMAGES = "images"
    """Or statistics of them, where there are some."""
    MOMENTS = "moments"


@dataclass(frozen=True)
class Settings:
    """Numbers that methods share.

    Attributes:
        seed: of every random choice.
        iterations: of what is learned, for each unit or block.
        drop: probability with which `brecq` leaves a value unquantized while it learns, 0..1.
        memory: GiB for activations that are kept in memory; the rest lies in files.
        mean_bits: of weights whose channels share bits out, more than 0, at most 8; None: those of the unit.
    """

    seed: int = 0
    iterations: int = 500
    drop: float = 0.5
    memory: float = 4.0
    mean_bits: float | None = None


@dataclass
class Workbench:
    """What methods change.

    Methods of the float stage replace `graph` (and what they know of it in `moments`), those of the rules stage
    `options`; then the model is built and its ranges are found, and the others change the model.

    Attributes:
        graph: the float network; its batch norms are folded.
        bits: of every unit.
        options: which quantizers.
        images: to calibrate with; None: there are none.
        statistics: to find ranges from in place of images; None: images are looked at.
        image_range: lowest and highest value of an image, for ranges without images; by default that of ImageNet's
            normalisation.
        ranges: where ranges of activations come from.
        settings: numbers of the methods.
        progress: told how far a long method is.
        folder: where long methods keep what they have done; None: nowhere.
        moments: of the units that had a batch norm, by unit.
        notes: sentences for the user.
    """

    graph: FloatGraph
    bits: BitConfig
    options: QuantOptions = field(default_factory=QuantOptions)
    images: Images | None = None
    statistics: StatisticsOf | None = None
    image_range: tuple[float, float] = (-2.1179, 2.64)
    ranges: Ranges = Ranges.IMAGES
    settings: Settings = field(default_factory=Settings)
    progress: Progress = silent
    folder: Path | None = None
    moments: Mapping[str, Moments] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _model: QuantizedModel | None = None

    @classmethod
    def of(cls, graph: FloatGraph, bits: BitConfig, **others: object) -> "Workbench":
        """Fold the batch norms of a float graph, remember their moments, and begin.

        Args:
            graph: as it was traced.
            bits: of every unit.
            others: attributes that are not the default.
        """
        return cls(folded_graph(graph), bits, moments=_moments(graph), **others)  # type: ignore[arg-type]

    @property
    def model(self) -> QuantizedModel:
        """The quantized model, in evaluation mode; built and calibrated when it is first asked for."""
        if self._model is None:
            model = QuantizedModel(self.graph, self.bits, self.options)
            if self.ranges is Ranges.MOMENTS or not (self.images or self.statistics):
                set_ranges(model, expected_ranges(self.graph, self.moments, self.image_range))
            elif self.statistics is not None:
                find_ranges(model, self.statistics(self.graph))
            else:
                model.calibrate(self.needed_images())
            self._model = model.eval()
        return self._model

    def needed_images(self) -> Iterable[Tensor]:
        """Return batches of images.

        Raises:
            UsageError: there are none.
        """
        if self.images is None:
            raise UsageError("this method needs images; give --data DIR, or --data distilled to make some")
        return self.images()

    def use(self, **options: object) -> None:
        """Change options of the quantizers."""
        self.options = replace(self.options, **options)  # type: ignore[arg-type]

    @torch.no_grad()
    def run(self, methods: Sequence[Method]) -> QuantizedModel:
        """Apply methods in their order and return the model.

        Raises:
            UsageError: a method needs images and there are none.
            HawqError: the bit config does not fit the network, or its numbers are not finite.
        """
        for method in methods:
            if method.needs_images and self.images is None:
                raise UsageError(f"method {method.name} needs images; give --data DIR, or --data distilled")
        for method in methods:
            self.apply(method)
        return self.model

    @torch.no_grad()
    def apply(self, method: Method) -> None:
        """Let one method change what it works on."""
        if method.stage < Stage.MODEL and self._model is not None:
            raise RuntimeError(f"{method.name} comes too late: the model is built")
        method.apply(self)


def _moments(graph: FloatGraph) -> dict[str, Moments]:
    found = {}
    for name in graph.units:
        norm = graph.unit(name).norm
        if norm is not None:
            found[name] = normalised(norm_state(graph, norm))
    return found
