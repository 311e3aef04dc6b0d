"""Register the estimators of sensitivity by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from hawq.graph.ir import FloatGraph
from hawq.sensitivity.hutchinson import Probing
from hawq.sensitivity.result import UnitSensitivity

__all__ = ["SENSITIVITIES", "Batch", "Estimator", "Measurement", "OnProbe", "register_sensitivity"]

Batch = tuple[Tensor, Tensor]
"""Images, float32, (N, C, H, W), and labels, int64, (N,)."""

OnProbe = Callable[[int, float], None]
"""Told the probes drawn so far and the largest relative error."""


@dataclass(frozen=True)
class Measurement:
    """Hold what an estimator found: unit -> sensitivity, and how many probes it drew."""

    units: Mapping[str, UnitSensitivity]
    probes: int


Estimator = Callable[[FloatGraph, Sequence[Batch], Probing, OnProbe], Measurement]

SENSITIVITIES: dict[str, Estimator] = {}
"""Every registered estimator by name."""


def register_sensitivity(name: str) -> Callable[[Estimator], Estimator]:
    """Register the decorated function as the estimator `name`."""

    def register(estimator: Estimator) -> Estimator:
        SENSITIVITIES[name] = estimator
        return estimator

    return register
