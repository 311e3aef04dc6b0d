"""Quantize and dequantize in one step, with the straight-through gradient (1308.3432)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hawq.integer.arithmetic import nearest_code

__all__ = ["fake_quantize", "pieces", "quantized"]

_PIECE = 1 << 16
"""Values a CPU takes through all steps at once: 256 KiB, which stay in its second-level cache."""


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, value: Tensor, scale: Tensor, zero_point: int, lo: int, hi: int
    ) -> Tensor:
        return quantized(value.float(), scale, zero_point, lo, hi)

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


def quantized(value: Tensor, scale: Tensor, zero_point: int, lo: int, hi: int) -> Tensor:
    """Return what `fake_quantize` does of float32 values, without a gradient."""
    out = torch.empty_like(value)
    for piece, target in pieces(value, out) if scale.dim() == 0 else [(value, out)]:
        # clamp(r + z, lo, hi) - z = clamp(r, lo - z, hi - z): the zero point costs nothing
        nearest_code(piece, scale, 0, lo - zero_point, hi - zero_point, out=target).mul_(scale)
    return out


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield matching pieces of tensors of one shape; on a GPU, or with gaps in memory, they are one piece.

    Args:
        tensors: the last one is new: `empty_like` leaves no gaps.
    """
    new = tensors[-1]
    if new.device.type != "cpu" or any(tensor.stride() != new.stride() for tensor in tensors):
        return iter([tensors])
    flat = (tensor.as_strided((tensor.numel(),), (1,)).split(_PIECE) for tensor in tensors)
    return zip(*flat, strict=True)
