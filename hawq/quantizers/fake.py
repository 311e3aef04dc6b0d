"""Quantize and dequantize in one step, with the straight-through gradient (1308.3432)."""

import torch
from torch import Tensor

from hawq.integer.arithmetic import nearest_code

__all__ = ["fake_quantize"]


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, value: Tensor, scale: Tensor, zero_point: int, lo: int, hi: int
    ) -> Tensor:
        return (nearest_code(value, scale, zero_point, lo, hi) - zero_point) * scale

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, None, None, None, None]:
        return grad, None, None, None, None


def fake_quantize(value: Tensor, scale: Tensor, zero_point: int, lo: int, hi: int) -> Tensor:
    """Return scale * (code - zero_point) of every value; the gradient passes rounding and clipping unchanged.

    Args:
        value: real values, float, any shape.
        scale: positive, broadcastable to `value`; gets no gradient.
        zero_point: of the codes.
        lo: lowest code.
        hi: highest code.
    """
    return _FakeQuantize.apply(value, scale, zero_point, lo, hi)  # type: ignore[no-any-return]
