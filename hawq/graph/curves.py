"""Name the smooth activation functions, each with its formula; an integer program computes them from tables."""

from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Curve"]


class Curve(Enum):
    """A function of one number that is no clamp.

    SIGMOID: s(x) = 1 / (1 + e^-x).
    HARD_SIGMOID: h(x) = min(max(x + 3, 0), 6) / 6 (arXiv 1905.02244).
    TANH: (e^x - e^-x) / (e^x + e^-x).
    HARD_SWISH: x h(x) (arXiv 1905.02244).
    SILU: x s(x), also known as swish (arXiv 1710.05941).
    GELU: x Phi(x), Phi the normal distribution (arXiv 1606.08415).
    GELU_TANH: GELU by the tanh formula of the same paper.
    MISH: x tanh(log(1 + e^x)) (arXiv 1908.08681).
    """

    SIGMOID = "sigmoid"
    HARD_SIGMOID = "hard_sigmoid"
    TANH = "tanh"
    HARD_SWISH = "hard_swish"
    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    MISH = "mish"

    def __call__(self, value: Tensor) -> Tensor:
        """Return the function of every number, in the type of `value`."""
        return _FORMULAS[self](value)

    @property
    def non_negative(self) -> bool:
        """Whether no value is below 0; of numbers >= 0 none of any of these functions is."""
        return self in (Curve.SIGMOID, Curve.HARD_SIGMOID)


_FORMULAS = {
    Curve.SIGMOID: torch.sigmoid,
    Curve.HARD_SIGMOID: F.hardsigmoid,
    Curve.TANH: torch.tanh,
    Curve.HARD_SWISH: F.hardswish,
    Curve.SILU: F.silu,
    Curve.GELU: F.gelu,
    Curve.GELU_TANH: lambda value: F.gelu(value, approximate="tanh"),
    Curve.MISH: F.mish,
}
