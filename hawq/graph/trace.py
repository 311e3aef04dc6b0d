"""Turn a model into the canonical float graph."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

import hawq.graph.ops_curves
import hawq.graph.ops_pointwise
import hawq.graph.ops_resize
import hawq.graph.ops_shape
import hawq.graph.ops_units
import hawq.graph.ops_windows  # noqa: F401  # importing registers the operations
from hawq.graph.builder import Builder
from hawq.graph.fuse import drop_dead, flatten_concats, fuse
from hawq.graph.ir import FloatGraph
from hawq.graph.padding import fold_padding
from hawq.graph.shaped_fx import ShapedTracer
from hawq.graph.written_out import recognise_curves

__all__ = ["trace"]

_PASSES: tuple[Callable[[FloatGraph], FloatGraph], ...] = (
    drop_dead,
    recognise_curves,
    fold_padding,
    drop_dead,
    fuse,
    flatten_concats,
)


def trace(model: nn.Module, input_shape: tuple[int, int, int]) -> FloatGraph:
    """Return the canonical graph of `model` in evaluation mode.

    The graph shares the model's parameters and buffers, and is valid for images of this one shape. The model itself
    is left as it was, its training flags included.

    Args:
        model: maps images (N, C, H, W) to logits.
        input_shape: (C, H, W) of one image.

    Raises:
        HawqError: the model holds an op that cannot be quantized, shares a layer between two places, decides by the
            values of a tensor, or does not run on this shape. The message names the op, the module and the line.
    """
    with _evaluation(model):
        calls = ShapedTracer(input_shape).trace(model)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    graph = Builder(tensors).build(calls)
    for apply in _PASSES:
        graph = apply(graph)
    return graph


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    """Hold the model in evaluation mode, then give every module its own flag back."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training
