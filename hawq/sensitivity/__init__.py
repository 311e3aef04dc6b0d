"""Estimate what few bits cost each unit: curvature of the loss times the error of the quantized weights."""

import hawq.sensitivity.hessian  # noqa: F401  (registers itself)
from hawq.sensitivity.hutchinson import Probing
from hawq.sensitivity.measure import measure, sensitivity_key
from hawq.sensitivity.registry import SENSITIVITIES, register_sensitivity
from hawq.sensitivity.result import Sensitivity, UnitSensitivity

__all__ = [
    "SENSITIVITIES",
    "Probing",
    "Sensitivity",
    "UnitSensitivity",
    "measure",
    "register_sensitivity",
    "sensitivity_key",
]
