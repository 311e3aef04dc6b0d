"""Quantize and dequantize in one step, with the straight-through gradient (1308.3432)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hawq.integer.arithmetic import nearest_code

__all__ = ["fake_quantize"]

_PIECE = 1 << 16
"""Values a CPU takes through all steps at once: 256 KiB, which stay in its second-level cache."""


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, value: Tensor, scale: Tensor, zero_point: int, lo: int, hi: int
    ) -> Tensor:
        value = value.float()
        out = torch.empty_like(value)
        pieces = _pieces(value, out) if scale.dim() == 0 else [(value, out)]
        for piece, target in pieces:
            # clamp(r + z, lo, hi) - z = clamp(r, lo - z, hi - z): the zero point costs nothing
            nearest_code(piece, scale, 0, lo - zero_point, hi - zero_point, out=target).mul_(scale)
        return out

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, None, None, None, None]:
        return grad, None, None, None, None


def fake_quantize(value: Tensor, scale: Tensor, zero_point: int, lo: int, hi: int) -> Tensor:
    """Return scale * (code - zero_point) of every value; the gradient passes rounding and clipping unchanged.

    The codes are `nearest_code`'s. Everything is computed in float32, under autocast as well: a half-precision value
    is widened first and its result is float32. Nothing is kept for the backward pass.

    Args:
        value: real values, float, any shape.
        scale: positive, float32, broadcastable to `value`; gets no gradient.
        zero_point: of the codes.
        lo: lowest code.
        hi: highest code.
    """
    return _FakeQuantize.apply(value, scale, zero_point, lo, hi)  # type: ignore[no-any-return]


def _pieces(value: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield matching pieces of two tensors; a tensor on a GPU, or one with gaps in memory, is one piece."""
    if value.device.type != "cpu" or value.stride() != out.stride():  # `out` is new, so its strides leave no gaps
        return iter([(value, out)])
    flat = (tensor.as_strided((tensor.numel(),), (1,)).split(_PIECE) for tensor in (value, out))
    return zip(*flat, strict=True)
