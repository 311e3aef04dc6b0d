"""Tabulate a function of one number over the codes of a tensor."""

import torch
from torch import Tensor

from hawq.graph.curves import Curve
from hawq.integer.arithmetic import quantize
from hawq.integer.ops import TensorType
from hawq.quantizers import ActivationQuantizer
from hawq.quantizers.threshold import ThresholdActivation

__all__ = ["tabulate"]


def tabulate(curve: Curve, source: TensorType, quantizer: ActivationQuantizer) -> Tensor:
    """Return the code of f(scale * (q - z)) for every code q, int32, (2^b,), computed in float64.

    Args:
        curve: the function f.
        source: type of the codes q, b bits.
        quantizer: of the output.
    """
    lowest, highest = source.range
    real = (torch.arange(lowest, highest + 1, dtype=torch.float64) - source.zero_point) * source.scale
    value = curve(real)
    if isinstance(quantizer, ThresholdActivation):
        levels = quantizer.levels()
        return levels.codes[torch.bucketize(value, levels.thresholds, right=True)].int()
    out = quantizer.tensor_type(source.shape)
    return quantize(value, out.scale, out.zero_point, *out.range)
