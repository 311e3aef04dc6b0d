"""Shape the gradients of what has none: rounding, and parameters that many values share."""

import torch
from torch import Tensor

__all__ = ["round_through", "scale_gradient"]


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
