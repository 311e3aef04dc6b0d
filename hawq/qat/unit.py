"""Hold one unit while it is trained: float weights, batch norm, and the fake quantization of the folded weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hawq.errors import HawqError
from hawq.graph import ir
from hawq.graph.functional import clamp, convolve
from hawq.integer.arithmetic import code_range, dyadic
from hawq.integer.ops import TensorType
from hawq.qat.fold import NormState, fold_affine, norm_state
from hawq.qat.plan import WeightSpec
from hawq.quantizers import ActivationQuantizer, QuantOptions, weight_quantizer
from hawq.quantizers.fake import fake_quantize
from hawq.quantizers.weight import bias_floor, bias_step, channel_floor, per_channel

__all__ = ["FoldedNorm", "QuantizedUnit", "UnitCodes"]


class FoldedNorm(nn.Module):
    """Hold the trainable and running tensors of a batch norm that will be folded, (C,) each."""

    mean: Tensor
    var: Tensor

    def __init__(self, state: NormState, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
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
            value, self.mean, self.var, self.weight, self.bias, training=True, momentum=self.momentum, eps=self.eps
        )


@dataclass(frozen=True)
class UnitCodes:
    """The integers of one unit.

    Attributes:
        weight: int8, (O, ...).
        bias: int32, (O,), at scale `accumulator_scale`.
        real_bias: what training adds, float64, (O,); `bias` is its nearest code.
        accumulator_scale: sx * sw, float64, (O,).
    """

    weight: Tensor
    bias: Tensor
    real_bias: Tensor
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
        spec: bits and quantizer of the weights; its group and norm stand in for those of the options.
        options: of the network.
    """

    weight: Tensor
    limit: Tensor | None

    def __init__(
        self, op: ir.Op, tensors: Mapping[str, Tensor], norm: NormState | None, spec: WeightSpec, options: QuantOptions
    ) -> None:
        super().__init__()
        self.op, self.bias_bits = op, options.bias_bits
        self.bias: nn.Parameter | None = None
        if isinstance(op, ir.Conv2d | ir.Linear):
            self.weight = nn.Parameter(tensors[op.weight].detach().clone())
            if op.bias is not None:
                self.bias = nn.Parameter(tensors[op.bias].detach().clone())
        elif norm is not None:
            self.register_buffer("weight", torch.ones(norm.mean.numel(), 1, 1, 1))
        limit = getattr(op, "limit", None)
        self.register_buffer("limit", None if limit is None else tensors[limit].detach().clone())
        self.norm = None if norm is None else FoldedNorm(norm, options.bn_momentum)
        own = replace(options, weight_group=spec.group, weight_norm=spec.norm)
        self.quantizer = weight_quantizer(spec.quantizer)(spec.bits, self.weight.detach(), own)

    @classmethod
    def of(cls, graph: ir.FloatGraph, name: str, spec: WeightSpec, options: QuantOptions) -> "QuantizedUnit":
        """Build the unit of a graph's node from the float tensors."""
        op = graph.nodes[name].op
        norm = getattr(op, "norm", None)
        return cls(op, graph.tensors, None if norm is None else norm_state(graph, norm), spec, options)

    def affine(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the factor, (O,), that batch norm puts on the weights, and the folded bias, (O,); None: 1 and 0."""
        return (None, self.bias) if self.norm is None else fold_affine(self.bias, self.norm.state)

    def forward(self, value: Tensor, source: ActivationQuantizer, fix_bn: bool) -> Tensor:
        """Return the real-valued output before the activation quantizer; arguments are those of `unclamped`."""
        return clamp(self.unclamped(value, source, fix_bn), getattr(self.op, "clamp", None), self.limit)

    def unclamped(self, value: Tensor, source: ActivationQuantizer, fix_bn: bool) -> Tensor:
        """Return the real-valued output before the activation.

        Args:
            value: fake-quantized input, (N, C, H, W) or (N, F).
            source: its quantizer.
            fix_bn: fold the running statistics; otherwise normalise with the batch's. Both quantize the same weights.
        """
        weight = self.quantizer(self.weight)
        if self.norm is not None and not fix_bn:
            return self.norm(self._multiply(value, weight, self.bias, source))  # type: ignore[no-any-return]
        factor, bias = self.affine()
        if factor is not None:
            weight = weight * per_channel(factor, weight)
        return self._multiply(value, weight, self._fake_bias(bias, factor, source), source)

    def codes(self, input_type: TensorType) -> UnitCodes:
        """Return the integers of the unit, given the type of its input.

        Channels whose scale is so small that ratios of scales, or the bias, would leave their range get a larger one.

        Raises:
            HawqError: a weight or bias is not finite.
        """
        codes, scale, bias = self._folded_codes()
        wanted = torch.maximum(channel_floor(scale), bias_floor(bias, torch.tensor(input_type.scale)))
        codes = torch.round(codes * per_channel(scale / wanted, codes))
        accumulator_scale = wanted.double() * input_type.scale
        step = bias_step(bias.double() / accumulator_scale, self.bias_bits)
        bias_codes = step * torch.round(bias.double() / (accumulator_scale * step))
        real_bias = bias.double() if self.bias_bits == 32 else bias_codes * accumulator_scale
        return UnitCodes(codes.to(torch.int8), bias_codes.to(torch.int32), real_bias, accumulator_scale)

    @torch.no_grad()
    def _folded_codes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return integers, (O, ...), non-negative scales, (O,), and bias, (O,), batch norm folded in, on the CPU."""
        factor, bias = self.affine()
        if not all(bool(torch.isfinite(t).all()) for t in (self.weight, factor, bias) if t is not None):
            raise HawqError("its weights or bias hold NaN or infinity")
        codes, scale = (tensor.cpu() for tensor in self.quantizer.codes(self.weight))
        if factor is not None:
            factor = factor.float().cpu()
            codes, scale = codes * per_channel(factor.sign(), codes), scale * factor.abs()
        return codes, scale, torch.zeros_like(scale) if bias is None else bias.float().cpu()

    def _fake_bias(self, bias: Tensor | None, factor: Tensor | None, source: ActivationQuantizer) -> Tensor | None:
        """Return the bias as its codes keep it; 32 bits are taken for exact."""
        if bias is None or self.bias_bits == 32:
            return bias
        scale = self.quantizer.scale(self.weight) * source.step()
        scale = channel_floor((scale if factor is None else scale * factor.abs()).detach())
        step = bias_step(bias / scale, self.bias_bits)
        return fake_quantize(bias, scale * step, 0, *code_range(self.bias_bits, signed=True))

    def _multiply(self, value: Tensor, weight: Tensor, bias: Tensor | None, source: ActivationQuantizer) -> Tensor:
        if isinstance(self.op, ir.Linear):
            return F.linear(value, weight, bias)
        if isinstance(self.op, ir.Norm):
            return F.conv2d(value, weight, bias, groups=weight.shape[0])
        assert isinstance(self.op, ir.Conv2d)
        fill = source.fill() if any(self.op.padding) else 0
        return convolve(value, weight, bias, self.op, fill * float(source.step()) if fill else 0.0)
