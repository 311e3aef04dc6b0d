"""Translate convolutions, linear layers and batch norms."""

from collections.abc import Sequence

import torch.nn.functional as F

from hawq.graph.builder import Builder, Param, Ref, canonical, unit_name
from hawq.graph.ir import Conv2d, Linear, Norm
from hawq.graph.windows import pair
from hawq.integer.geometry import Padding, Pair

__all__: list[str] = []


@canonical(F.conv2d)
def conv2d(
    b: Builder,
    input: Ref,
    weight: Param,
    bias: Param | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Ref:
    """Translate a convolution; a bias or batch norm of its own is fused later."""
    if len(input.shape) != 4:
        b.fail(f"convolves a tensor of shape {input.shape}; a batch (N, C, H, W) is needed")
    name = b.own(weight, "weight")
    op = Conv2d(
        weight=name,
        bias=None if bias is None else b.own(bias, "bias"),
        stride=pair(stride),
        padding=_conv_padding(b, padding, (weight.shape[2], weight.shape[3]), pair(dilation)),
        dilation=pair(dilation),
        groups=groups,
    )
    return b.emit(op, (input,), name=unit_name(name))


def _conv_padding(b: Builder, padding: int | Sequence[int] | str, kernel: Pair, dilation: Pair) -> Padding:
    if padding == "same":  # PyTorch: an odd total puts the extra zero behind; its stride is 1
        total = [dilation[a] * (kernel[a] - 1) for a in (0, 1)]
        return total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2
    if isinstance(padding, str):
        return 0, 0, 0, 0  # "valid", the only other string PyTorch accepts
    rows, columns = pair(padding)
    return rows, rows, columns, columns


@canonical(F.linear)
def linear(b: Builder, input: Ref, weight: Param, bias: Param | None = None) -> Ref:
    """Translate a linear layer over (N, F)."""
    if len(input.shape) != 2:
        b.fail(f"is applied to a tensor of shape {input.shape}; flatten it to (N, features) first")
    name = b.own(weight, "weight")
    op = Linear(weight=name, bias=None if bias is None else b.own(bias, "bias"))
    return b.emit(op, (input,), name=unit_name(name))


@canonical(F.batch_norm)
def batch_norm(
    b: Builder,
    input: Ref,
    running_mean: Param | None,
    running_var: Param | None,
    weight: Param | None = None,
    bias: Param | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
) -> Ref:
    """Translate a batch norm with running statistics."""
    if training or running_mean is None or running_var is None:
        b.fail(
            "normalises with the statistics of the batch, which differ between batches; use running statistics "
            "(track_running_stats=True, evaluation mode)"
        )
    return b.emit(Norm(b.norm(running_mean, running_var, weight, bias, eps)), (input,))
