"""`lsq`: the step is learned together with the weights (1902.08153)."""

import math

import torch
from torch import Tensor, nn

from hawq.quantizers.activation import UniformActivation
from hawq.quantizers.fake import pieces, quantized
from hawq.quantizers.gradients import scale_gradient
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_activation, register_weight
from hawq.quantizers.weight import WeightQuantizer, channel_floor, weight_limit

__all__ = ["LsqActivation", "LsqWeight", "quantize_by_step"]

_SMALLEST_STEP = 2.0**-24
"""Of an activation: with it ratios of scales stay dyadic numbers."""


_inside = torch.ops.aten.hardtanh_backward
"""Its first argument where the second lies between lo and hi, ends left out, else 0: one pass over memory."""


class _QuantizeByStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        value: Tensor,
        step: Tensor,
        offset: Tensor | None,
        zero_point: int,
        lo: int,
        hi: int,
        passed: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(value, step, passed)  # type: ignore[arg-type]
        ctx.codes = zero_point, lo - zero_point, hi - zero_point  # type: ignore[attr-defined]
        out = quantized(value, step, zero_point, lo, hi)
        for part, mask, target in [] if passed is None else pieces(value, passed, out):
            target.lerp_(part, mask.float())  # exact at 0 and 1, and three times as fast as `where`
        return out

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None, None, None, None]:
        value, step, passed = ctx.saved_tensors  # type: ignore[attr-defined]
        zero_point, lo, hi = ctx.codes  # type: ignore[attr-defined]
        value_grad = torch.empty_like(value)
        tensors = (value, grad, value_grad) if passed is None else (value, grad, passed, value_grad)
        learns = ctx.needs_input_grad[1]  # type: ignore[attr-defined]
        products = []
        for part, part_grad, *mask, target in pieces(*tensors) if step.dim() == 0 else [tensors]:
            steps = part / step
            _inside.grad_input(part_grad, steps, lo, hi, grad_input=target)
            share = mask[0].float() if mask else None
            if share is not None:
                target.lerp_(part_grad, share)
            if learns:
                slope = torch.round(steps).clamp_(lo, hi).sub_(_inside(steps, steps, lo, hi)).mul_(part_grad)
                slope = slope if share is None else slope.mul_(1 - share)
                products.append(slope.sum_to_size(step.shape))
        step_grad = torch.stack(products).sum(0) if learns else None
        if not ctx.needs_input_grad[2]:  # type: ignore[attr-defined]
            return value_grad, step_grad, None, None, None, None, None
        offset_grad = grad.sum() - value_grad.sum()  # of the values outside
        return value_grad, step_grad + zero_point * offset_grad, offset_grad, None, None, None, None


def quantize_by_step(
    value: Tensor,
    step: Tensor,
    lo: int,
    hi: int,
    offset: Tensor | None = None,
    zero_point: int = 0,
    passed: Tensor | None = None,
) -> Tensor:
    """Return s * (code - z), code = clamp(rint(v / s) + z, lo, hi), with the gradients of both papers.

    To v: 1 where lo < v/s + z < hi, else 0. To s: rint(v/s) - v/s there, lo below, hi above (1902.08153, sections 2.1
    and 2.3). To the offset: 0 there, 1 below and above (2004.09576).

    Args:
        value: v, float32, any shape.
        step: s, positive, float32, a scalar or broadcastable to `value`.
        lo: lowest code.
        hi: highest code.
        offset: real value that the zero point stands for, a scalar: z = rint(-offset / s). Only gradients need it.
        zero_point: z, in lo..hi.
        passed: where values are returned as they are, bool, of their shape; None: nowhere.
    """
    return _QuantizeByStep.apply(value, step, offset, zero_point, lo, hi, passed)  # type: ignore[no-any-return]


@register_activation("lsq")
class LsqActivation(UniformActivation):
    """Learn the step of a tensor.

    It begins at the mean over the batches of the calibration of 2 mean|v| / sqrt(Qp). The step is the magnitude of the
    parameter, so that it stays positive. There is no zero point: a signed tensor has symmetric codes.
    """

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        super().__init__(bits, grid.without_zero_point(), options)
        self.step_size = nn.Parameter(torch.ones(()))

    def calibrate(self, value: Tensor) -> None:
        """Take in the mean magnitude of a batch."""
        hi = self.grid.codes(self.bits)[1]
        self._average(self.step_size, 2 * value.abs().mean() / math.sqrt(hi))

    def quantize(self, value: Tensor) -> Tensor:
        """Return the fake-quantized value; the gradient of the step is scaled as `step_gradient` says."""
        lo, hi = self.grid.codes(self.bits)
        step = scale_gradient(self._positive(), self.gradient_factor(value, hi))
        return quantize_by_step(value, step, lo, hi)

    def scale_and_zero_point(self) -> tuple[Tensor, int]:
        """Return the step, a positive float32 scalar, and 0."""
        return self._positive().detach(), 0

    def _positive(self) -> Tensor:
        return self.step_size.abs().clamp(min=_SMALLEST_STEP)


@register_weight("lsq")
class LsqWeight(WeightQuantizer):
    """Learn the step of every row; the paper has one for a layer.

    Codes are all that b bits hold, -2^(b-1) .. 2^(b-1) - 1; of 8 bits all but -128, whose negative int8 lacks when
    batch norm turns the sign of a channel. Steps are magnitudes of the parameters, at least 2^-16 of the layer's
    largest.
    """

    def __init__(self, bits: int, weight: Tensor, options: QuantOptions) -> None:
        super().__init__(bits, weight, options)
        self.lo, self.hi = -min(1 << (bits - 1), 127), weight_limit(bits)
        self.step_size = nn.Parameter(self.start(self.rows(weight.detach())))

    def start(self, rows: Tensor) -> Tensor:
        """Return the steps to begin with, 2 mean|w| / sqrt(Qp), (R,), of rows of weights, (R, n)."""
        return 2 * rows.abs().mean(1) / math.sqrt(self.hi)

    def row_scale(self, rows: Tensor) -> Tensor:
        """Return the steps, float32, (R,)."""
        return self._positive().detach()

    def quantize(self, rows: Tensor) -> Tensor:
        """Return the fake-quantized rows; the gradient of a step is scaled as `step_gradient` says."""
        step = scale_gradient(self._positive(), self.gradient_factor(rows, self.hi))
        return quantize_by_step(rows, step[:, None], self.lo, self.hi)

    def _positive(self) -> Tensor:
        return channel_floor(self.step_size.abs())
