"""Quantize activations: what every activation quantizer is, and the uniform ones with one scale per tensor."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from hawq.errors import HawqError
from hawq.integer.ops import TensorType
from hawq.quantizers.fake import fake_quantize
from hawq.quantizers.gradients import StepGradient
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.options import QuantOptions

__all__ = ["ActivationQuantizer", "UniformActivation"]


class ActivationQuantizer(nn.Module, ABC):
    """Quantize one tensor of a network.

    A calibration shows it a few batches, from which it finds its range or the start of what it learns; in training it
    may go on observing. Under autocast its arithmetic stays in float32.

    Args:
        bits: of the codes; one of `widths`, or 16 for residual streams.
        grid: where uniform codes lie; elsewhere whether the tensor may hold negative values.
        options: of the network.
    """

    widths: ClassVar[range] = range(2, 9)
    """Bits it can have."""
    everywhere: ClassVar[bool] = False
    """Whether it also serves the 8-bit tensors that the pinned units read."""
    carries_widths: ClassVar[bool] = False
    """Whether what it found at one width holds at another."""
    uniform: ClassVar[bool]
    """Whether its codes have equal steps, so that a requantization produces them."""

    seen: Tensor

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        super().__init__()
        self.bits, self.grid, self.options = bits, grid, options
        self.calibrating = False
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # batches of the calibration

    def start_calibration(self) -> None:
        """Forget what was seen."""
        self.seen.zero_()

    @abstractmethod
    def calibrate(self, value: Tensor) -> None:
        """Take in a batch of the calibration, float32, any shape; called without gradients."""

    def observe(self, value: Tensor) -> None:
        """Take in a batch of the training, float32, any shape; called without gradients."""
        return

    @abstractmethod
    def quantize(self, value: Tensor) -> Tensor:
        """Return the fake-quantized value, float32, with the gradients of the method."""

    @abstractmethod
    def step(self) -> Tensor:
        """Return what a code of 1 is worth, a positive float32 scalar."""

    def fill(self) -> int:
        """Return the code, less the zero point, that the padding of a convolution holds."""
        return 0

    @abstractmethod
    def tensor_type(self, shape: tuple[int, ...]) -> TensorType:
        """Return the type of a quantized tensor of this shape, (C, H, W) or (F,).

        Raises:
            HawqError: nothing was observed yet, or the range is not finite.
        """

    def forward(self, value: Tensor) -> Tensor:
        """Return the fake-quantized value; observe it first where training or calibration asks for it."""
        with torch.autocast(value.device.type, enabled=False):
            value = value.float()
            if self.calibrating or self.training:
                with torch.no_grad():
                    (self.calibrate if self.calibrating else self.observe)(value.detach())
                    self.seen += self.calibrating
            return self.quantize(value)

    def gradient_factor(self, value: Tensor, highest: int = 1) -> float:
        """Return what the gradient of a learned number is multiplied by.

        Args:
            value: (N, C, ...) or (N,).
            highest: code, of uniform ones.
        """
        return StepGradient(self.options.step_gradient).factor(value[0].numel(), value.shape[1:2].numel(), highest)

    def _average(self, kept: Tensor, found: Tensor) -> None:
        """Make `kept` the mean over the batches of the calibration, given what is found in this one."""
        kept.lerp_(found, 1 / (int(self.seen) + 1))

    def extra_repr(self) -> str:
        """Show bits and grid."""
        return f"bits={self.bits}, grid={self.grid.value}"

    def _check(self, *finite: Tensor) -> None:
        """Check that there was a calibration and that tensors are finite.

        Raises:
            HawqError: they are not.
        """
        if not bool(self.seen):
            raise HawqError("an activation has no range yet: calibrate or train the model before it is evaluated")
        if not all(bool(torch.isfinite(tensor).all()) for tensor in finite):
            raise HawqError("an activation's range is not finite: the network or its input produced NaN or infinity")


class UniformActivation(ActivationQuantizer):
    """Quantize with equal steps: value = scale * (code - zero point)."""

    uniform = True

    @abstractmethod
    def scale_and_zero_point(self) -> tuple[Tensor, int]:
        """Return the scale, a positive float32 scalar, and the zero point."""

    def step(self) -> Tensor:
        """Return the scale."""
        return self.scale_and_zero_point()[0]

    def lowest(self) -> Tensor:
        """Return the real value of the lowest code, float32, a scalar."""
        scale, zero_point = self.scale_and_zero_point()
        return scale * (self.grid.codes(self.bits)[0] - zero_point)

    def quantize(self, value: Tensor) -> Tensor:
        """Return the fake-quantized value; the gradient passes rounding and clipping unchanged."""
        return fake_quantize(value, *self.scale_and_zero_point(), *self.grid.codes(self.bits))

    def tensor_type(self, shape: tuple[int, ...]) -> TensorType:
        """Return the type of a quantized tensor of this shape, (C, H, W) or (F,)."""
        scale, zero_point = self.scale_and_zero_point()
        self._check(scale)
        return TensorType(shape, self.bits, self.grid.signed, float(scale), zero_point)
