"""Quantize a trained network without training it: ranges, equalization, corrections, learned rounding."""

from hawq.ptq import methods  # noqa: F401  # they register themselves
from hawq.ptq.gaussians import Moments
from hawq.ptq.registry import METHODS, PRESETS, Method, Stage, parse_methods, register_method
from hawq.ptq.statistics import Statistics
from hawq.ptq.workbench import Progress, Settings, Workbench, silent

__all__ = [
    "METHODS",
    "PRESETS",
    "Method",
    "Moments",
    "Progress",
    "Settings",
    "Stage",
    "Statistics",
    "Workbench",
    "parse_methods",
    "register_method",
    "silent",
]
