"""Estimate what few bits cost each unit, with standard errors. A metric is one class under `@register_metric`."""

import hawq.sensitivity.eigenvalue
import hawq.sensitivity.hutchinson
import hawq.sensitivity.measured
import hawq.sensitivity.quadratic
import hawq.sensitivity.traces  # noqa: F401  (they register themselves)
from hawq.sensitivity.measure import ROUND, Sampling, measure
from hawq.sensitivity.registry import METRICS, register_metric
from hawq.sensitivity.result import Operand, Sensitivity, Term, UnitSensitivity

__all__ = [
    "METRICS",
    "ROUND",
    "Operand",
    "Sampling",
    "Sensitivity",
    "Term",
    "UnitSensitivity",
    "measure",
    "register_metric",
]
