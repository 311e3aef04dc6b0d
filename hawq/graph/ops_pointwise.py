"""Translate activations that are clamps, sums, concatenations, and what does nothing in evaluation."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from hawq.graph.builder import Builder, Ref, canonical
from hawq.graph.ir import Add, Clamp, Concat, Relu
from hawq.graph.written_out import Scaled

__all__: list[str] = []


def _clamp(b: Builder, x: Ref, low: float | None, high: float | None) -> Ref:
    if low != 0 or (high is not None and high <= 0):
        b.fail(f"clamps to [{low}, {high}]; only clamps from 0 are supported (ReLU, ReLU6, clamp(0, x))")
    return b.emit(Relu(Clamp(0.0, None if high is None or high == float("inf") else float(high))), (x,))


@canonical(F.relu, torch.relu, torch.relu_, "relu", "relu_")
def relu(b: Builder, input: Ref, inplace: bool = False) -> Ref:
    """Translate max(x, 0)."""
    return _clamp(b, input, 0, None)


@canonical(F.relu6)
def relu6(b: Builder, input: Ref, inplace: bool = False) -> Ref:
    """Translate min(max(x, 0), 6)."""
    return _clamp(b, input, 0, 6)


@canonical(F.hardtanh, F.hardtanh_)
def hardtanh(b: Builder, input: Ref, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Ref:
    """Translate a clamp to [0, max_val]."""
    return _clamp(b, input, min_val, max_val)


@canonical(torch.clamp, torch.clamp_, torch.clip, torch.clip_, "clamp", "clamp_", "clip", "clip_")
def clamp(b: Builder, input: Ref, min: float | None = None, max: float | None = None) -> Ref:
    """Translate a clamp to [0, max]."""
    if not all(bound is None or isinstance(bound, int | float) for bound in (min, max)):
        b.fail("clamps to tensors; only numbers are supported")
    return _clamp(b, input, min, max)


@canonical(torch.clamp_min, torch.clamp_min_, "clamp_min", "clamp_min_")
def clamp_min(b: Builder, input: Ref, min: float) -> Ref:
    """Translate max(x, 0)."""
    return clamp(b, input, min)


@canonical(operator.add, operator.iadd, torch.add, "add", "add_")
def add(b: Builder, input: Any, other: Any, *, alpha: float = 1) -> Ref:
    """Translate the sum of two tensors of one shape, or of a tensor and a number; 0 (as `sum` adds it) is nothing."""
    if alpha != 1:
        b.fail(f"adds with alpha={alpha}; only plain sums are supported")
    for number, tensor in ((input, other), (other, input)):
        if isinstance(number, int | float) and isinstance(tensor, Ref):
            return b.emit(Scaled(1.0, float(number), b.site), (tensor,)) if number else b.fresh(tensor)
    if not (isinstance(input, Ref) and isinstance(other, Ref)):
        b.fail("adds a parameter to an activation; put it into the bias of the layer before")
    if input.shape != other.shape:
        b.fail(f"adds tensors of shapes {input.shape} and {other.shape}; broadcasting is not supported")
    return b.emit(Add(), (input, other))


@canonical(torch.cat, torch.concat, torch.concatenate)
def cat(b: Builder, tensors: Sequence[Ref], dim: int = 0, axis: int | None = None) -> Ref:
    """Translate a concatenation along the channels."""
    along = dim if axis is None else axis
    if along % len(b.out_shape) != 1:
        b.fail(f"concatenates along dimension {along}; only channels (dim=1) are supported")
    if len(tensors) == 1:
        return b.fresh(tensors[0])
    return b.emit(Concat(), tuple(tensors))


@canonical(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout)
def dropout(b: Builder, input: Ref, p: float = 0.5, training: bool = True, inplace: bool = False) -> Ref:
    """Remove a dropout, which does nothing in evaluation."""
    if training and p > 0:
        b.fail("drops values at random in evaluation too; pass training=self.training, or use nn.Dropout")
    return input


@canonical("torchvision.ops.stochastic_depth.stochastic_depth")
def stochastic_depth(b: Builder, input: Ref, p: float, mode: str, training: bool = True) -> Ref:
    """Remove the dropping of whole branches, which does nothing in evaluation."""
    return dropout(b, input, p, training)


@canonical("contiguous", "detach", torch.detach)
def contiguous(b: Builder, input: Ref, memory_format: Any = None) -> Ref:
    """Remove what only concerns memory or gradients."""
    return input


@canonical("clone", torch.clone)
def clone(b: Builder, input: Ref, memory_format: Any = None) -> Ref:
    """Remove a copy, and remember that it is one: later in-place ops on the original leave it alone."""
    return b.fresh(input)


@canonical("to", "float", "type_as")
def to(b: Builder, input: Ref, *args: Any, **kwargs: Any) -> Ref:
    """Remove a conversion to the type the tensor has already."""
    if not b.keeps_type:
        b.fail("changes the type of an activation; the traced network computes in one type throughout")
    return input
