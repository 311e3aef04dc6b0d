"""Hold one unit while it is trained: float weights, batch norm, and the fake quantization of the folded weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hawq.errors import HawqError
from hawq.graph import ir
from hawq.graph.functional import clamp, convolve
from hawq.integer.arithmetic import dyadic
from hawq.integer.ops import TensorType
from hawq.qat.fold import NormState, fold, norm_state
from hawq.quantizers.fake import fake_quantize
from hawq.quantizers.weight import bias_floor, per_channel, quantize_weight, weight_limit, weight_scale

__all__ = ["FoldedNorm", "QuantizedUnit", "UnitCodes"]

_NORM_MOMENTUM = 0.01
"""Weight of a batch in the running statistics (2011.10680 keeps 0.99 of the old value)."""


class FoldedNorm(nn.Module):
    """Hold the trainable and running tensors of a batch norm that will be folded, (C,) each."""

    mean: Tensor
    var: Tensor

    def __init__(self, state: NormState) -> None:
        super().__init__()
        self.weight = nn.Parameter(state.weight.detach().clone())
        self.bias = nn.Parameter(state.bias.detach().clone())
        self.register_buffer("mean", state.mean.detach().clone())
        self.register_buffer("var", state.var.detach().clone())
        self.eps = state.eps

    @property
    def state(self) -> NormState:
        """The tensors, ready to fold."""
        return NormState(self.weight, self.bias, self.mean, self.var, self.eps)

    def forward(self, value: Tensor) -> Tensor:
        """Normalise with the batch's statistics and update the running ones."""
        return F.batch_norm(
            value, self.mean, self.var, self.weight, self.bias, training=True, momentum=_NORM_MOMENTUM, eps=self.eps
        )


@dataclass(frozen=True)
class UnitCodes:
    """The integers of one unit.

    Attributes:
        weight: int8, (O, ...).
        bias: int32, (O,), at scale `accumulator_scale`.
        accumulator_scale: sx * sw, float64, (O,).
    """

    weight: Tensor
    bias: Tensor
    accumulator_scale: Tensor

    def dyadic_to(self, out: TensorType) -> tuple[Tensor, Tensor]:
        """Return multiplier and shift, int32, (O,), that take accumulators to the codes of `out`."""
        multiplier, shift = dyadic(self.accumulator_scale / out.scale)
        return multiplier.int(), shift.int()


class QuantizedUnit(nn.Module):
    """Compute a convolution, a linear layer or a lone batch norm with quantized weights.

    Args:
        op: ir.Conv2d, ir.Linear or ir.Norm; a lone norm is a depthwise 1x1 convolution whose weights are ones.
        tensors: of the float graph; copied.
        norm: tensors of the op's batch norm, if it has one.
        bits: of the weights, 2..8.
    """

    weight: Tensor

    def __init__(self, op: ir.Op, tensors: Mapping[str, Tensor], norm: NormState | None, bits: int) -> None:
        super().__init__()
        self.op, self.bits = op, bits
        self.bias: nn.Parameter | None = None
        if isinstance(op, ir.Conv2d | ir.Linear):
            self.weight = nn.Parameter(tensors[op.weight].detach().clone())
            if op.bias is not None:
                self.bias = nn.Parameter(tensors[op.bias].detach().clone())
        elif norm is not None:
            self.register_buffer("weight", torch.ones(norm.mean.numel(), 1, 1, 1))
        self.norm = None if norm is None else FoldedNorm(norm)

    @classmethod
    def of(cls, graph: ir.FloatGraph, name: str, bits: int) -> "QuantizedUnit":
        """Build the unit of a graph's node from the float tensors."""
        op = graph.nodes[name].op
        norm = getattr(op, "norm", None)
        return cls(op, graph.tensors, None if norm is None else norm_state(graph, norm), bits)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return the weight, (O, ...), and bias, (O,), with the batch norm folded in; gradients flow through."""
        if self.norm is not None:
            return fold(self.weight, self.bias, self.norm.state)
        return self.weight, torch.zeros_like(self.weight.flatten(1)[:, 0]) if self.bias is None else self.bias

    def scale_of(self, weight: Tensor, bias: Tensor, input_scale: Tensor) -> Tensor:
        """Return the scales, float32, (O,), of folded weights."""
        return torch.maximum(weight_scale(weight, self.bits), bias_floor(bias, input_scale))

    def forward(self, value: Tensor, input_scale: Tensor, fix_bn: bool) -> Tensor:
        """Return the real-valued output before the activation quantizer.

        Args:
            value: fake-quantized input, (N, C, H, W) or (N, F).
            input_scale: its scale, scalar.
            fix_bn: fold the running statistics; otherwise normalise with the batch's. Scales per output channel make
                both quantize the same weights, since folding multiplies a channel by one number.
        """
        if self.norm is not None and not fix_bn:
            scale = weight_scale(self.weight, self.bits)
            return self._clamp(self.norm(self._multiply(value, self._fake(self.weight, scale), self.bias)))
        weight, bias = self.folded()
        return self._clamp(self._multiply(value, self._fake(weight, self.scale_of(weight, bias, input_scale)), bias))

    def codes(self, input_type: TensorType) -> UnitCodes:
        """Return the integers of the unit, given the type of its input.

        Raises:
            HawqError: a weight or bias is not finite, or the bias leaves int32.
        """
        weight, bias = (tensor.detach().float().cpu() for tensor in self.folded())
        if not bool(torch.isfinite(weight).all() & torch.isfinite(bias).all()):
            raise HawqError("its weights or bias hold NaN or infinity")
        scale = self.scale_of(weight, bias, torch.tensor(input_type.scale))
        accumulator_scale = scale.double() * input_type.scale
        bias_codes = torch.round(bias.double() / accumulator_scale)
        return UnitCodes(
            quantize_weight(weight, scale, self.bits).to(torch.int8), bias_codes.to(torch.int32), accumulator_scale
        )

    def _fake(self, weight: Tensor, scale: Tensor) -> Tensor:
        limit = weight_limit(self.bits)
        return fake_quantize(weight, per_channel(scale, weight), 0, -limit, limit)

    def _multiply(self, value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if isinstance(self.op, ir.Linear):
            return F.linear(value, weight, bias)
        if isinstance(self.op, ir.Norm):
            return F.conv2d(value, weight, bias, groups=weight.shape[0])
        assert isinstance(self.op, ir.Conv2d)
        return convolve(value, weight, bias, self.op)

    def _clamp(self, value: Tensor) -> Tensor:
        return clamp(value, getattr(self.op, "clamp", None))
