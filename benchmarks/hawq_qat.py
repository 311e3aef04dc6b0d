"""ResNet-18 trained by HAWQ-V3's published algorithm (2011.10680, section 3), written plainly.

Weights are quantized per channel after batch norm is folded in with its running statistics, activations by a running
range of 8 bits, residual sums of 16. Every requantization is simulated as the integers of a deployed network: the
dyadic number of each ratio of scales is made on the host, one after the other, in every step, and the codes are
multiplied in float64. Gradients pass rounding and clipping straight through.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["HawqResNet18"]

_WEIGHT_LIMIT, _BIAS_LIMIT = 2**7 - 1, 2**31 - 1
_MOMENTUM = 0.99


@dataclass(frozen=True)
class Scaled:
    """Real values and the scale of their codes, a scalar or (1, C, 1, 1); None for what is not quantized yet."""

    value: Tensor
    scale: Tensor | None

    def relu(self) -> "Scaled":
        return Scaled(F.relu(self.value), self.scale)


def dyadic_on_host(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Return m and e of the dyadic numbers m / 2^e nearest to ratios, float64, halves rounded up."""
    mantissa, exponent = np.frexp(ratio.cpu().numpy().reshape(-1))
    rounded = [int(Decimal(float(m) * 2**31).quantize(Decimal(1), rounding=ROUND_HALF_UP)) for m in mantissa]
    multiplier = torch.tensor(rounded, dtype=torch.float64, device=ratio.device)
    shift = torch.tensor(31.0 - exponent, dtype=torch.float64, device=ratio.device)
    return multiplier.view(ratio.shape), shift.view(ratio.shape)


class _Round(torch.autograd.Function):
    """Return clamp(round(value / scale), -limit, limit)."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: Tensor, limit: int) -> Tensor:
        ctx.scale = scale
        return torch.clamp(torch.round(value / scale), -limit, limit)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad / ctx.scale, None, None


class _Requantize(torch.autograd.Function):
    """Take the codes of a value to another scale by a dyadic number, rounded in float64."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, before: Tensor, after: Tensor) -> Tensor:
        ctx.after = after
        multiplier, shift = dyadic_on_host(before.double() / after.double())
        codes = torch.round(value / before).double()
        return torch.round(codes * multiplier / 2.0**shift).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad / ctx.after, None, None


class Activation(nn.Module):
    """Quantize a tensor, or the sum of two, to signed codes of a running range."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.limit = 2 ** (bits - 1) - 1
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.seen = False

    @torch.no_grad()
    def observe(self, value: Tensor) -> Tensor:
        """Move the range and return the scale."""
        low, high = value.min(), value.max()
        weight = 1 - _MOMENTUM if self.seen else 1.0
        self.low.lerp_(low, weight)
        self.high.lerp_(high, weight)
        self.seen = True
        return torch.maximum(self.low.abs(), self.high.abs()).clamp(min=1e-8) / self.limit

    def forward(self, x: Scaled, identity: Scaled | None = None) -> Scaled:
        scale = self.observe(x.value if identity is None else x.value + identity.value)
        if identity is not None:  # each branch is rounded on its own, the sum is not clipped
            codes = _Requantize.apply(x.value, x.scale, scale)
            codes = codes + _Requantize.apply(identity.value, identity.scale, scale)
        elif x.scale is None:
            codes = _Round.apply(x.value, scale, self.limit)
        else:
            codes = _Requantize.apply(x.value, x.scale, scale).clamp(-self.limit - 1, self.limit)
        return Scaled(codes * scale, scale)


class Unit(nn.Module):
    """A convolution with its batch norm, or a linear layer, in codes of 8 bits."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm

    @classmethod
    def of(cls, block: nn.Module) -> "Unit":
        return cls(block.conv, block.bn)

    def folded(self) -> tuple[Tensor, Tensor]:
        if self.norm is None:
            return self.layer.weight, self.layer.bias
        factor = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        return self.layer.weight * factor.view(-1, 1, 1, 1), self.norm.bias - self.norm.running_mean * factor

    def forward(self, x: Scaled) -> Scaled:
        weight, bias = self.folded()
        scale = weight.detach().flatten(1).abs().amax(1).clamp(min=1e-8) / _WEIGHT_LIMIT
        codes = _Round.apply(weight, scale.view(-1, *(1,) * (weight.dim() - 1)), _WEIGHT_LIMIT)
        bias_codes = _Round.apply(bias, scale * x.scale, _BIAS_LIMIT)
        source = x.value / x.scale
        if isinstance(self.layer, nn.Linear):
            return Scaled(F.linear(source, codes, bias_codes) * (scale * x.scale), scale * x.scale)
        out_scale = (scale * x.scale).view(1, -1, 1, 1)
        return Scaled(F.conv2d(source, codes, bias_codes, self.layer.stride, self.layer.padding) * out_scale, out_scale)


class Block(nn.Module):
    """A basic residual block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.first, self.second = Unit.of(block.body.conv1), Unit.of(block.body.conv2)
        self.shortcut = Unit.of(block.identity_conv) if block.resize_identity else None
        self.source, self.middle, self.sum = Activation(8), Activation(8), Activation(16)

    def forward(self, x: Scaled) -> Scaled:
        source = self.source(x)
        identity = x if self.shortcut is None else self.shortcut(source)
        return self.sum(self.second(self.middle(self.first(source).relu())), identity).relu()


class HawqResNet18(nn.Module):
    """Wrap the layers of pytorchcv's ResNet-18; images, (N, 3, H, W), to logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        stem, *stages, _ = network.features
        self.image, self.stem, self.pool, self.stream = Activation(8), Unit.of(stem.conv), stem.pool, Activation(16)
        self.blocks = nn.Sequential(*(Block(block) for stage in stages for block in stage))
        self.last, self.classifier = Activation(8), Unit(network.output)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits, (N, classes)."""
        stem = self.stem(self.image(Scaled(image, None)))
        x = self.blocks(self.stream(Scaled(self.pool(stem.value), stem.scale)).relu())
        x = self.last(x)
        codes = (x.value / x.scale).mean((2, 3))
        codes = codes + (torch.trunc(codes + 0.01) - codes).detach()
        return self.classifier(Scaled(codes * x.scale, x.scale)).value
