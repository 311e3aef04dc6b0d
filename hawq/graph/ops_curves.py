"""Translate smooth activation functions, and products of two activations."""

import operator
from typing import Any

import torch
import torch.nn.functional as F

from hawq.graph.builder import Builder, Ref, canonical
from hawq.graph.curves import Curve
from hawq.graph.ir import Mul, Unary
from hawq.graph.written_out import Scaled

__all__: list[str] = []


@canonical(torch.sigmoid, torch.sigmoid_, F.sigmoid, "sigmoid", "sigmoid_")
def sigmoid(b: Builder, input: Ref) -> Ref:
    """Translate 1 / (1 + e^-x)."""
    return b.emit(Unary(Curve.SIGMOID), (input,))


@canonical(torch.tanh, torch.tanh_, F.tanh, "tanh", "tanh_")
def tanh(b: Builder, input: Ref) -> Ref:
    """Translate the hyperbolic tangent."""
    return b.emit(Unary(Curve.TANH), (input,))


@canonical(F.hardsigmoid)
def hardsigmoid(b: Builder, input: Ref, inplace: bool = False) -> Ref:
    """Translate relu6(x + 3) / 6."""
    return b.emit(Unary(Curve.HARD_SIGMOID), (input,))


@canonical(F.hardswish)
def hardswish(b: Builder, input: Ref, inplace: bool = False) -> Ref:
    """Translate x relu6(x + 3) / 6."""
    return b.emit(Unary(Curve.HARD_SWISH), (input,))


@canonical(F.silu)
def silu(b: Builder, input: Ref, inplace: bool = False) -> Ref:
    """Translate x sigmoid(x)."""
    return b.emit(Unary(Curve.SILU), (input,))


@canonical(F.mish)
def mish(b: Builder, input: Ref, inplace: bool = False) -> Ref:
    """Translate x tanh(softplus(x))."""
    return b.emit(Unary(Curve.MISH), (input,))


@canonical(F.gelu)
def gelu(b: Builder, input: Ref, approximate: str = "none") -> Ref:
    """Translate x Phi(x), exact or by its tanh formula."""
    return b.emit(Unary(Curve.GELU if approximate == "none" else Curve.GELU_TANH), (input,))


@canonical(operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply", "multiply_")
def mul(b: Builder, input: Any, other: Any) -> Ref:
    """Translate the product of two tensors of one shape, of a map and one number for each channel, or for all."""
    for number, tensor in ((input, other), (other, input)):
        if isinstance(number, int | float) and isinstance(tensor, Ref):
            return b.emit(Scaled(float(number), 0.0, b.site), (tensor,))
    if not (isinstance(input, Ref) and isinstance(other, Ref)):
        b.fail("multiplies an activation by a parameter; put it into the weights of the layer before")
    factors = sorted((input, other), key=lambda factor: factor.shape != b.out_shape)  # the map first
    if any(factor.shape not in (b.out_shape, (*b.out_shape[:2], 1, 1)) for factor in factors):
        b.fail(
            f"multiplies tensors of shapes {input.shape} and {other.shape}; supported are equal shapes, and a map "
            "(N, C, H, W) times (N, C, 1, 1)"
        )
    first, second = factors
    return b.emit(Mul(), (first, b.squeezed(second) if second.shape[2:] == (1, 1) else second))


@canonical(operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide,
           "div", "div_", "divide", "divide_", "true_divide", "true_divide_")  # fmt: skip
def div(b: Builder, input: Any, other: Any, *, rounding_mode: str | None = None) -> Ref:
    """Translate the division by a number."""
    if not isinstance(input, Ref) or not isinstance(other, int | float) or other == 0 or rounding_mode is not None:
        b.fail("divides by a tensor, or rounds; only an activation over a number other than 0 is supported")
    return mul(b, input, 1 / other)
