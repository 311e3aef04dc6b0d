"""Quantize activations: one scale per tensor, from a running range."""

from enum import Enum

import torch
from torch import Tensor, nn

from hawq.errors import HawqError
from hawq.integer.arithmetic import code_range
from hawq.integer.ops import TensorType
from hawq.quantizers.fake import fake_quantize

__all__ = ["ActivationGrid", "ActivationQuantizer"]

_SMALLEST_SPAN = 1e-6


class ActivationGrid(Enum):
    """Place the codes of b bits over a range [low, high].

    UNSIGNED: zero point 0, scale = high / (2^b - 1); for tensors that are never negative.
    SYMMETRIC: signed, zero point 0, scale = max(|low|, |high|) / (2^(b-1) - 1).
    AFFINE: unsigned with a zero point, scale = (high - low) / (2^b - 1), zero point = rint(-low / scale); the range is
    widened to hold 0, so that zero padding has a code.
    """

    UNSIGNED = "unsigned"
    SYMMETRIC = "symmetric"
    AFFINE = "affine"

    @property
    def signed(self) -> bool:
        """Whether the codes are signed."""
        return self is ActivationGrid.SYMMETRIC


class ActivationQuantizer(nn.Module):
    """Observe the range of a tensor and quantize it.

    The first batch sets the range; later ones move it: low <- momentum * low + (1 - momentum) * min(batch), and high
    alike; momentum -1 keeps the running minimum and maximum (2011.10680).

    Args:
        bits: 2..8, or 16 for residual streams.
        grid: where the codes lie.
        momentum: of the running range, 0..1, or -1.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, bits: int, grid: ActivationGrid, momentum: float) -> None:
        super().__init__()
        self.bits, self.grid, self.momentum = bits, grid, momentum
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def observe(self, value: Tensor) -> None:
        """Move the range towards that of `value` (real values, any shape)."""
        low, high = torch.aminmax(value.detach().float())
        if not bool(self.seen):
            self.low.copy_(low)
            self.high.copy_(high)
            self.seen.fill_(True)
        elif self.momentum < 0:
            self.low.copy_(torch.minimum(self.low, low))
            self.high.copy_(torch.maximum(self.high, high))
        else:
            self.low.lerp_(low, 1 - self.momentum)
            self.high.lerp_(high, 1 - self.momentum)

    def scale_and_zero_point(self) -> tuple[Tensor, int]:
        """Return the scale, a float32 scalar, and the zero point.

        Raises:
            HawqError: nothing was observed yet, or the range is not finite.
        """
        if not bool(self.seen):
            raise HawqError("an activation has no range yet: calibrate or train the model before it is evaluated")
        if not bool(torch.isfinite(self.low) & torch.isfinite(self.high)):
            raise HawqError("an activation's range is not finite: the network or its input produced NaN or infinity")
        steps = code_range(self.bits, self.grid.signed)[1]
        if self.grid is ActivationGrid.UNSIGNED:
            return self.high.clamp(min=_SMALLEST_SPAN) / steps, 0
        if self.grid is ActivationGrid.SYMMETRIC:
            return torch.maximum(self.low.abs(), self.high.abs()).clamp(min=_SMALLEST_SPAN) / steps, 0
        low, high = self.low.clamp(max=0), self.high.clamp(min=0)
        scale = (high - low).clamp(min=_SMALLEST_SPAN) / steps
        return scale, int(torch.round(-low / scale).clamp(0, steps))

    def tensor_type(self, shape: tuple[int, ...]) -> TensorType:
        """Return the type of a quantized tensor of this shape, (C, H, W) or (F,)."""
        scale, zero_point = self.scale_and_zero_point()
        return TensorType(shape, self.bits, self.grid.signed, float(scale), zero_point)

    def forward(self, value: Tensor) -> Tensor:
        """Return the fake-quantized value; in training mode observe it first."""
        if self.training:
            self.observe(value)
        scale, zero_point = self.scale_and_zero_point()
        return fake_quantize(value, scale, zero_point, *code_range(self.bits, self.grid.signed))

    def extra_repr(self) -> str:
        """Show bits and grid."""
        return f"bits={self.bits}, grid={self.grid.value}"
