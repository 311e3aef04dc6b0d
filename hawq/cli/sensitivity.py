"""Measure the sensitivities of a session's network, with a progress bar, on one process or on several."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hawq.cli.console import console, progress

if TYPE_CHECKING:
    from hawq.cli.session import Session
    from hawq.distributed import World
    from hawq.sensitivity import Sampling, Sensitivity
    from hawq.sensitivity.registry import Batch

__all__ = ["ImageBudget", "measure_session"]


@dataclass(frozen=True)
class ImageBudget:
    """Say which images a measurement may look at.

    Attributes:
        images: training images at most, drawn by the seed.
        batch_size: images at a time, at most; bounds the memory. Few images make smaller batches, so that there are
            eight samples to resample.
        workers: threads that decode images.
        device: cpu or cuda.
    """

    images: int = 2048
    batch_size: int = 32
    workers: int = 0
    device: str = "cpu"


def measure_session(
    session: "Session",
    sampling: "Sampling",
    budget: ImageBudget,
    enough: Callable[["Sensitivity"], bool],
    world: "World",
) -> "Sensitivity":
    """Return the sensitivities of a run's float network, measured now or found in the run.

    Args:
        session: the run.
        sampling: what to measure.
        budget: on how many images at most.
        enough: ends the measurement earlier.
        world: processes that share the batches; only the leader writes.

    Raises:
        UsageError: the metric cannot be measured on such data.
    """
    from hawq.sensitivity import ROUND, measure
    from hawq.sensitivity.registry import check_task

    check_task(sampling.metric, session.data.task)
    tensors = {name: tensor.to(budget.device) for name, tensor in session.graph.tensors.items()}
    graph = replace(session.graph, tensors=tensors)
    total = min(budget.images, len(session.data.train))
    size = max(1, min(budget.batch_size, total // ROUND))
    with progress() as bars:
        task = bars.add_task(f"sensitivities ({sampling.metric})", total=total, status="")

        def batches() -> Iterator["Batch"]:
            for images, labels in session.data.batches(
                "train",
                size,
                shuffle=True,
                seed=sampling.seed,
                limit=budget.images,
                workers=budget.workers,
            ):
                yield images, labels
                bars.advance(task, len(labels))

        found = measure(graph, sampling, batches(), session.run.sensitivity(sampling.metric), enough, world)
    console.print(
        f"sensitivities: {found.metric}, {found.images} images, kept in {session.run.sensitivity(sampling.metric)}",
        soft_wrap=True,
    )
    return found
