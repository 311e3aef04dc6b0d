"""Distil images from a network's batch norms (ZeroQ, 2001.00281)."""

from hawq.distill.images import DFQ, QUICK, ZEROQ, Progress, Recipe, distill, silent
from hawq.distill.statistics import Divisor, Statistics

__all__ = ["DFQ", "QUICK", "ZEROQ", "Divisor", "Progress", "Recipe", "Statistics", "distill", "silent"]
