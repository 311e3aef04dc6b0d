"""Register the metrics of sensitivity by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hawq.errors import UsageError
from hawq.sensitivity.perturbation import Subject
from hawq.sensitivity.result import Term
from hawq.task import Task

__all__ = ["METRICS", "Batch", "Metric", "Quantity", "check_task", "metric", "register_metric"]

Batch = tuple[Tensor, Tensor]
"""Images, float32, (N, C, H, W), and labels, int64, (N,)."""


@dataclass(frozen=True)
class Quantity:
    """Say what one number of a sample stands for: a term of a unit's Omega."""

    unit: str
    term: Term


class Metric(Protocol):
    """Measure one batch at a time; the mean over batches is the result.

    Attributes:
        quantities: what the numbers of a sample stand for, unit by unit in the order of the network.
    """

    quantities: tuple[Quantity, ...]

    def sample(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean over the images of every quantity, float64, (quantities,), on the CPU.

        Args:
            images: float32, (N, C, H, W).
            labels: int64, (N,).
            generator: of random vectors, on the CPU; it belongs to this batch alone.
        """


_Factory = Callable[[Subject], Metric]

METRICS: dict[str, _Factory] = {}
"""Every registered metric by name."""


_LABELLED: set[str] = set()


def register_metric(name: str, *, labels: bool = False) -> Callable[[_Factory], _Factory]:
    """Register the decorated class as the metric `name`, and say whether it looks at the labels."""

    def register(factory: _Factory) -> _Factory:
        METRICS[name] = factory
        if labels:
            _LABELLED.add(name)
        return factory

    return register


def check_task(name: str, task: Task) -> None:
    """Check that a metric can be measured on data of a task.

    Raises:
        UsageError: it looks at labels, and the data has masks; or the data has boxes, whose loss no metric knows.
    """
    if task is Task.DETECTION:
        raise UsageError("sensitivities of detectors cannot be measured; name a scheme, such as uniform8")
    if task is Task.SEGMENTATION and name in _LABELLED:
        free = ", ".join(each for each in METRICS if each not in _LABELLED)
        raise UsageError(f"metric {name} needs a label an image, and the data has masks; those without are {free}")


def metric(name: str) -> _Factory:
    """Return a registered metric.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in METRICS:
        raise UsageError(f"metric {name!r} is unknown; known are {', '.join(METRICS)}")
    return METRICS[name]
