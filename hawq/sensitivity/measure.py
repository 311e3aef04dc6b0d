"""Measure sensitivities batch by batch until they suffice, and find again what was measured before."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from hawq import __version__
from hawq.distributed import World
from hawq.errors import HawqError
from hawq.graph.identity import identity, update
from hawq.graph.ir import FloatGraph
from hawq.sensitivity.perturbation import prepare
from hawq.sensitivity.registry import Batch, Metric, metric
from hawq.sensitivity.result import Sensitivity, UnitSensitivity

__all__ = ["ROUND", "Sampling", "measure"]

ROUND = 8
"""Batches between two looks at what was found."""

Sample = tuple[tuple[str, int], tuple[float, ...]]
"""Hash and number of images of a batch, and what was measured on it."""


@dataclass(frozen=True)
class Sampling:
    """Say how sensitivities are measured.

    Attributes:
        metric: registered name.
        widths: bits to measure; some metrics know all of 2..8 at once.
        seed: of random vectors.
    """

    metric: str
    widths: tuple[int, ...] = (4, 8)
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the metric.

        Raises:
            UsageError: it is unknown.
        """
        metric(self.metric)


def measure(
    graph: FloatGraph,
    sampling: Sampling,
    batches: Iterable[Batch],
    cache: Path,
    enough: Callable[[Sensitivity], bool] = lambda found: False,
    world: World | None = None,
) -> Sensitivity:
    """Return the sensitivities of a network.

    Every batch is one sample, measured by itself with a random generator of its own: the result depends neither on
    how many processes share the work nor on whether it was interrupted.

    Args:
        graph: the float network, on the device to compute on.
        sampling: what to measure.
        batches: images and labels; memory is bounded by the largest batch.
        cache: file of the samples; those of another network, metric or batch are measured anew, the others are kept.
            It is written after every round of 8 batches.
        enough: told what was found after every round; True ends the measurement.
        world: processes that share the batches.

    Raises:
        HawqError: no batches, or numbers that are not finite.
    """
    make, world = metric(sampling.metric), world or World()
    source = iter(batches)
    device = next(iter(graph.tensors.values())).device
    measured = make(prepare(graph, sampling.widths))
    key = _key(graph, sampling, measured)
    known = _known(cache, key)
    samples: list[Sample] = []
    found: Sensitivity | None = None
    while upcoming := list(islice(source, ROUND)):
        fresh: dict[int, Sample] = {}
        complete = True
        for index, (images, labels) in enumerate(upcoming, start=len(samples)):
            identity = (_digest(images, labels), len(labels))
            if index < len(known) and known[index][0] == identity:
                fresh[index] = known[index]
                continue
            complete = False
            if world.owns(index):
                generator = torch.Generator().manual_seed(sampling.seed * 1_000_003 + index)
                values = measured.sample(images.to(device), labels.to(device), generator)
                fresh[index] = (identity, tuple(values.tolist()))
        samples += world.join(fresh).values()
        found = _assemble(graph, sampling, key, measured, samples, str(device))
        if world.leads and not complete:
            found.save(cache)
        if enough(found):
            break
    if found is None:
        raise HawqError("sensitivities need at least one batch of images; given none")
    return found


def _assemble(
    graph: FloatGraph, sampling: Sampling, key: str, measured: Metric, samples: list[Sample], device: str
) -> Sensitivity:
    if not bool(torch.isfinite(torch.tensor([values for _, values in samples])).all()):
        raise HawqError("sensitivities are not finite; check the weights and the images for NaN or infinity")
    columns = zip(*(values for _, values in samples), strict=True)
    terms = [replace(q.term, samples=column) for q, column in zip(measured.quantities, columns, strict=True)]
    units = {
        unit: UnitSensitivity(
            graph.weights(unit),
            tuple(term for q, term in zip(measured.quantities, terms, strict=True) if q.unit == unit),
        )
        for unit in graph.units
    }
    environment = {"hawq": __version__, "torch": torch.__version__, "device": device}
    options = {"widths": list(sampling.widths), "seed": sampling.seed}
    batches = tuple(identity for identity, _ in samples)
    return Sensitivity(sampling.metric, key, batches, options, environment, units)


def _known(cache: Path, key: str) -> list[Sample]:
    """Return the samples that were measured before for the same key."""
    try:
        found = Sensitivity.load(cache)
    except HawqError:
        return []  # none yet, or a broken one: it is measured and written again
    if found.key != key:
        return []
    columns = [term.samples for unit in found.units.values() for term in unit.terms]
    return list(zip(found.batches, zip(*columns, strict=True), strict=True))


def _key(graph: FloatGraph, sampling: Sampling, measured: Metric) -> str:
    """Return the SHA-256 of all that a sample depends on but its batch: metric, network, weights, seed."""
    quantities = [(q.unit, q.term.operand, sorted(q.term.factor)) for q in measured.quantities]
    return identity(graph, sampling.metric, sampling.seed, quantities)


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        update(digest, tensor)
    return digest.hexdigest()[:16]
