"""Say of every unit what its quantization loses, where it loses it, and what would help."""

from hawq.analysis.hints import Hint, Remedies, hint_of, remedies_of
from hawq.analysis.measure import Analysis, UnitAnalysis, analyze
from hawq.analysis.noise import Noise
from hawq.analysis.reference import reference_graph, sweep_models

__all__ = [
    "Analysis",
    "Hint",
    "Noise",
    "Remedies",
    "UnitAnalysis",
    "analyze",
    "hint_of",
    "reference_graph",
    "remedies_of",
    "sweep_models",
]
