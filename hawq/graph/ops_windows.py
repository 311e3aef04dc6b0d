"""Translate pools, spatial means and padding."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from hawq.graph.builder import Builder, Ref, canonical
from hawq.graph.ir import AvgPool2d, MaxPool2d
from hawq.graph.padding import Pad
from hawq.graph.windows import average_counts, even_window, explicit_padding, pair
from hawq.integer.geometry import Pair

__all__: list[str] = []

_Size = int | Sequence[int]


def _map_size(b: Builder, x: Ref) -> Pair:
    if len(x.shape) != 4:
        b.fail(f"pools a tensor of shape {x.shape}; a batch (N, C, H, W) is needed")
    return x.shape[2], x.shape[3]


def _out_size(b: Builder) -> Pair:
    return b.out_shape[2], b.out_shape[3]


@canonical(F.max_pool2d, torch.max_pool2d)
def max_pool2d(
    b: Builder,
    input: Ref,
    kernel_size: _Size,
    stride: _Size | None = None,
    padding: _Size = 0,
    dilation: _Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Ref:
    """Translate a max pool."""
    if return_indices:
        b.fail("returns the indices of the maxima; only the maxima are supported")
    size, kernel, dilate = _map_size(b, input), pair(kernel_size), pair(dilation)
    step = pair(stride) if stride else kernel
    around = explicit_padding(size, _out_size(b), kernel, step, pair(padding), dilate)
    return b.emit(MaxPool2d(kernel, step, around, dilate), (input,))


@canonical(F.avg_pool2d)
def avg_pool2d(
    b: Builder,
    input: Ref,
    kernel_size: _Size,
    stride: _Size | None = None,
    padding: _Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Ref:
    """Translate an average pool, with the divisor of every window made explicit."""
    size, out, kernel = _map_size(b, input), _out_size(b), pair(kernel_size)
    step = pair(stride) if stride else kernel
    if divisor_override is not None and divisor_override < 1:
        b.fail(f"divides by {divisor_override}; a positive divisor is needed")
    counts = divisor_override or average_counts(size, out, kernel, step, pair(padding), count_include_pad)
    return b.emit(
        AvgPool2d(kernel, step, explicit_padding(size, out, kernel, step, pair(padding), (1, 1)), counts), (input,)
    )


def _adaptive_window(b: Builder, input: Ref) -> Pair:
    size, out = _map_size(b, input), _out_size(b)
    window = even_window(size, out)
    if window is None:
        b.fail(f"pools a map of {size} to {out}, which does not divide it; use a size that does, or another input size")
    return window


@canonical(F.adaptive_avg_pool2d)
def adaptive_avg_pool2d(b: Builder, input: Ref, output_size: Any) -> Ref:
    """Translate an adaptive average pool whose windows tile the map."""
    window = _adaptive_window(b, input)
    return b.emit(AvgPool2d(window, window, (0, 0, 0, 0), window[0] * window[1]), (input,))


@canonical(F.adaptive_max_pool2d)
def adaptive_max_pool2d(b: Builder, input: Ref, output_size: Any, return_indices: bool = False) -> Ref:
    """Translate an adaptive max pool whose windows tile the map."""
    if return_indices:
        b.fail("returns the indices of the maxima; only the maxima are supported")
    window = _adaptive_window(b, input)
    return b.emit(MaxPool2d(window, window, (0, 0, 0, 0), (1, 1)), (input,))


@canonical(torch.mean, "mean")
def mean(b: Builder, input: Ref, dim: _Size | None = None, keepdim: bool = False, *, dtype: Any = None) -> Ref:
    """Translate the mean over rows and columns."""
    axes = [dim] if isinstance(dim, int) else list(dim or ())
    if len(input.shape) != 4 or sorted(axis % 4 for axis in axes) != [2, 3]:
        b.fail(f"averages a tensor of shape {input.shape} over {dim}; only the mean over (2, 3) is supported")
    window = _map_size(b, input)
    pooled = b.emit(
        AvgPool2d(window, window, (0, 0, 0, 0), window[0] * window[1]), (input,), shape=(*input.shape[:2], 1, 1)
    )
    return Ref(pooled.node, b.out_shape, pooled.storage)


@canonical(F.pad, torch.constant_pad_nd)
def pad(b: Builder, input: Ref, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Ref:
    """Translate padding with zeros around the map; it is folded into its readers later."""
    fill = 0.0 if value is None else float(value)
    sides = [*pad, *[0] * (8 - len(pad))]
    if mode != "constant" or fill not in (0.0, float("-inf")):
        b.fail(f"pads with mode {mode!r} and value {fill}; only zeros are supported (mode 'constant', value 0)")
    if len(input.shape) != 4 or any(sides[4:]) or min(sides) < 0:
        b.fail(
            f"pads a tensor of shape {input.shape} by {tuple(pad)}; only rows and columns can be padded, by 0 or more"
        )
    left, right, top, bottom = sides[:4]
    if not any(sides):
        return b.fresh(input)
    return b.emit(Pad((top, bottom, left, right), fill, b.site), (input,))
