"""`dorefa`: weights bounded by tanh, activations clipped at 1, both on levels that nothing learns (1606.06160)."""

import torch
from torch import Tensor

from hawq.errors import UsageError
from hawq.quantizers.activation import UniformActivation
from hawq.quantizers.gradients import round_through
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.lsq import quantize_by_step
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_activation, register_weight
from hawq.quantizers.weight import WeightQuantizer, channel_floor

__all__ = ["DorefaActivation", "DorefaWeight"]


@register_activation("dorefa")
class DorefaActivation(UniformActivation):
    """Clip to [0, 1] and quantize with 2^b - 1 steps; where it is clipped the gradient is 0.

    A signed tensor has symmetric codes with the highest at 1.
    """

    widths = range(1, 9)

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        grid = grid.without_zero_point()
        if bits == 1 and grid.signed:
            raise UsageError(
                "activation quantizer dorefa has no 1-bit codes for a tensor with negative values; give the units "
                "that read it 2 bits or more, or another quantizer such as xnor"
            )
        super().__init__(bits, grid, options)

    def calibrate(self, value: Tensor) -> None:
        """Find nothing: the range is fixed."""

    def quantize(self, value: Tensor) -> Tensor:
        """Return the fake-quantized value; within the range the gradient passes rounding unchanged."""
        lo, hi = self.grid.codes(self.bits)
        return quantize_by_step(value, self.step(), lo, hi)

    def scale_and_zero_point(self) -> tuple[Tensor, int]:
        """Return 1 over the highest code, float32, and 0."""
        one = torch.ones((), device=self.seen.device)
        return self.grid.place(-one, one, self.bits)


@register_weight("dorefa")
class DorefaWeight(WeightQuantizer):
    """Quantize t = tanh(w) / (2 m) + 1/2, m = max |tanh w|, with n = 2^b - 1 steps: m (2 rint(n t) / n - 1).

    Its integers are the odd numbers -n, -n + 2, ... n, so there is no zero; with 8 bits they would leave int8. One
    bit is sign(w) * mean |w|, the gradient passing unchanged. The maximum and the mean are those of a row; the paper
    has one for a layer.

    The paper leaves the factor m out, which batch norm takes out again; with it a network trained in floats keeps
    working, with its batch norm fixed or without any. No gradient passes it, so gradients are m times the paper's.
    """

    widths = range(1, 8)

    def row_scale(self, rows: Tensor) -> Tensor:
        """Return m / (2^b - 1), or mean |w| of one bit, float32, (R,)."""
        rows = rows.detach()
        limits = rows.abs().mean(1) if self.bits == 1 else torch.tanh(rows).abs().amax(1) / ((1 << self.bits) - 1)
        return channel_floor(limits)

    def quantize(self, rows: Tensor) -> Tensor:
        """Return the fake-quantized rows, with the gradients of the paper."""
        scale = self.row_scale(rows)[:, None]
        if self.bits == 1:
            sign = torch.where(rows.detach() >= 0, scale, -scale)
            return sign + (rows - rows.detach())
        steps = (1 << self.bits) - 1
        bounded = torch.tanh(rows)
        unit = bounded / (2 * channel_floor(bounded.abs().amax(1))[:, None]) + 0.5
        return (2 * round_through(steps * unit) - steps) * scale
