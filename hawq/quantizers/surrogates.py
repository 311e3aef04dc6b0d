"""Give steps a gradient: the derivative of something smoother in place of their own, which is zero (1308.3432)."""

from enum import Enum

import torch
from torch import Tensor

__all__ = ["SignGradient", "binary_sign", "substitute"]


class SignGradient(Enum):
    """What stands in for the derivative of sign(x).

    IDENTITY: 1.
    STE: 1 where |x| < 1, else 0: the derivative of clip(x, -1, 1) (1602.02830).
    TRIANGLE: 2 - 2|x| where |x| < 1, else 0: that of a piecewise quadratic, closer to the sign (1808.00278).
    STE_SCALE: STE times sqrt(N / number of x inside): the norm of the gradient stays, whatever the clip cuts off.
    """

    IDENTITY = "identity"
    STE = "ste"
    TRIANGLE = "triangle"
    STE_SCALE = "ste-scale"

    def slope(self, value: Tensor) -> Tensor:
        """Return the derivative at x, of the shape of x."""
        if self is SignGradient.IDENTITY:
            return torch.ones_like(value)
        if self is SignGradient.TRIANGLE:
            return (2 - 2 * value.abs()).clamp(min=0)
        inside = (value.abs() < 1).to(value.dtype)
        if self is SignGradient.STE:
            return inside
        return inside * torch.sqrt(value.numel() / inside.sum().clamp(min=1))


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, value: Tensor, gradient: SignGradient
    ) -> Tensor:
        ctx.save_for_backward(value)
        ctx.gradient = gradient  # type: ignore[attr-defined]
        return torch.where(value >= 0, 1.0, -1.0)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, None]:
        (value,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * ctx.gradient.slope(value), None  # type: ignore[attr-defined]


class _Substitute(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, value: Tensor, smooth: Tensor
    ) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[None, Tensor]:
        return None, grad


def binary_sign(value: Tensor, gradient: SignGradient) -> Tensor:
    """Return +1 where x >= 0 and -1 elsewhere, float32, with the gradient that is asked for."""
    return _Sign.apply(value, gradient)  # type: ignore[no-any-return]


def substitute(value: Tensor, smooth: Tensor) -> Tensor:
    """Return `value`, bit for bit; its gradient goes to `smooth`, a tensor of the same shape."""
    return _Substitute.apply(value.detach(), smooth)  # type: ignore[no-any-return]
