"""Shape the gradients of what has none: rounding, and parameters that many values share."""

import math
from enum import Enum

import torch
from torch import Tensor

__all__ = ["StepGradient", "round_through", "scale_gradient"]

_SHARE = 0.5
"""k of the public variant of LSQ."""


class StepGradient(Enum):
    """What the gradient of a learned step, gain or threshold is multiplied by.

    PAPER: 1 / sqrt(N Qp): a step moves, relative to its size, as much as the weights do (1902.08153, section 2.2).
    NONE: 1.
    FAN_SCALE, SCALE_FAN: k sqrt(fan) and k / sqrt(fan).
    ELEMENT_SCALE, SCALE_ELEMENT: k sqrt(N) and k / sqrt(N).

    The last four, k = 1/2, are those of a public variant of LSQ; they know nothing of the codes.
    """

    PAPER = "paper"
    NONE = "none"
    FAN_SCALE = "fan-scale"
    SCALE_FAN = "scale-fan"
    ELEMENT_SCALE = "element-scale"
    SCALE_ELEMENT = "scale-element"

    def factor(self, count: int, fan: int, highest: int) -> float:
        """Return the factor.

        Args:
            count: N, weights that share the parameter, or values of an activation in one image.
            fan: weights of one output channel, or channels of an activation.
            highest: Qp, the highest code; 1 where the parameter is no step of uniform codes.
        """
        match self:
            case StepGradient.PAPER:
                return 1 / math.sqrt(count * highest)
            case StepGradient.NONE:
                return 1.0
            case StepGradient.FAN_SCALE:
                return _SHARE * math.sqrt(fan)
            case StepGradient.SCALE_FAN:
                return _SHARE / math.sqrt(fan)
            case StepGradient.ELEMENT_SCALE:
                return _SHARE * math.sqrt(count)
            case StepGradient.SCALE_ELEMENT:
                return _SHARE / math.sqrt(count)


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, value: Tensor) -> Tensor:  # type: ignore[override]
        return torch.round(value)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, value: Tensor, factor: float
    ) -> Tensor:
        ctx.factor = factor  # type: ignore[attr-defined]
        return value.view_as(value)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, None]:
        return grad * ctx.factor, None  # type: ignore[attr-defined]


def round_through(value: Tensor) -> Tensor:
    """Return rint(value), ties to even; the gradient passes unchanged (straight through, 1308.3432)."""
    return _Round.apply(value)  # type: ignore[no-any-return]


def scale_gradient(value: Tensor, factor: float) -> Tensor:
    """Return the value; its gradient is multiplied by `factor`."""
    return _ScaleGradient.apply(value, factor)  # type: ignore[no-any-return]
