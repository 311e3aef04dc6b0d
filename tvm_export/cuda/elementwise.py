"""Call the kernels of elementwise.cuh: ops whose threads read and write vectors of neighbouring channels."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import tvm

from hawq.integer import ops as o
from tvm_export.cuda.source import DeviceFunction, codes, constants_text, start_threads
from tvm_export.definitions import Site
from tvm_export.expressions import byte_table

__all__ = ["elementwise", "has_vectors"]

_HEADERS = ("vectors.cuh", "elementwise.cuh")
_THREADS = 128
_WIDE, _NARROW = 16, 4
"""Channels of a thread: 16 bytes of 8-bit codes where there is work for all, fewer where the tensor is small."""
_BUSY = 1 << 16
"""Threads that keep a GPU busy."""

_Parts = tuple[str, dict[str, int | bool]]
_DESCRIPTIONS: dict[type[o.Op], Callable[[Any, Site], _Parts]] = {}
"""By op type: what gives the name of the function and the constants it asks for beside those of every op."""

_OpT = TypeVar("_OpT", bound=o.Op)


def _describes(kind: type[_OpT]) -> Callable[[Callable[[_OpT, Site], _Parts]], Callable[[_OpT, Site], _Parts]]:
    def register(function: Callable[[_OpT, Site], _Parts]) -> Callable[[_OpT, Site], _Parts]:
        _DESCRIPTIONS[kind] = function
        return function

    return register


@_describes(o.Add)
def _add(op: o.Add, site: Site) -> _Parts:
    return "add", {"ZeroB": site.inputs[1].type.zero_point, "StoredB": site.inputs[1].channels, **_limits(op)}


@_describes(o.Mul)
def _multiply(op: o.Mul, site: Site) -> _Parts:
    second, (_, height, width) = site.inputs[1], site.out.chw
    shared = height * width if second.chw[1:] == (1, 1) else 1
    described = {"ZeroB": second.type.zero_point, "StoredB": second.channels, "PixelsB": shared}
    return "multiply", {**described, **_limits(op)}


@_describes(o.Table)
def _look_up(op: o.Table, site: Site) -> _Parts:
    return "look_up", {}


@_describes(o.Requantize)
def _requantize(op: o.Requantize, site: Site) -> _Parts:
    return "requantize", _limits(op)


@_describes(o.MaxPool2d)
def _max_pool(op: o.MaxPool2d, site: Site) -> _Parts:
    return "max_pool", {"Lo": op.out.range[0], **_window(op, site, op.dilation)}


@_describes(o.AvgPool2d)
def _average_pool(op: o.AvgPool2d, site: Site) -> _Parts:
    one = site.constants["multiplier"].size == 1
    return "average_pool", {"OneCount": one, **_limits(op), **_window(op, site, (1, 1))}


def _limits(op: Any) -> dict[str, int | bool]:
    return {"Zero": op.out.zero_point, "Lo": op.lo, "Hi": op.hi}


def _window(op: Any, site: Site, dilation: tuple[int, int]) -> dict[str, int | bool]:
    _, height, width = site.inputs[0].chw
    _, out_height, out_width = site.out.chw
    return {
        "Height": height, "Width": width, "OutHeight": out_height, "OutWidth": out_width,
        "KernelH": op.kernel[0], "KernelW": op.kernel[1], "StrideH": op.stride[0], "StrideW": op.stride[1],
        "Top": op.padding[0], "Left": op.padding[2], "DilationH": dilation[0], "DilationW": dilation[1],
    }  # fmt: skip


def has_vectors(site: Site) -> bool:
    """Tell whether the op has a kernel here, and its tensors hold whole vectors of channels."""
    stored = [storage.channels for storage in (*site.inputs, site.out)]
    return type(site.op) in _DESCRIPTIONS and all(channels % _WIDE == 0 for channels in stored)


def elementwise(site: Site) -> tuple[tvm.tirx.PrimFunc, tuple[np.ndarray, ...]]:
    """Return the kernel of an op, and its constants."""
    name, described = _DESCRIPTIONS[type(site.op)](site.op, site)
    out, inputs = site.out, dict(zip("ab", site.inputs, strict=False))
    pixels = site.batch * out.chw[1] * out.chw[2]
    count = _WIDE if pixels * out.channels // _WIDE >= _BUSY else _NARROW
    vectors = out.channels // count
    shared: Mapping[str, int | bool] = {
        "Pixels": pixels, "Vectors": vectors, "Codes": count, "Threads": _THREADS, "OutStored": out.channels,
        "StoredA": site.inputs[0].channels, "ZeroA": site.inputs[0].type.zero_point,
    }  # fmt: skip
    types = {"Y": codes(out, count), **{key.upper(): codes(source, count) for key, source in inputs.items()}}
    given = {**site.constants, "table": byte_table(site)} if isinstance(site.op, o.Table) else site.constants
    constants = {key: np.ascontiguousarray(given[key]) for key in site.op.constants}
    arguments = ", ".join([*inputs, *constants, "y"])
    parameters = ", ".join([*(f"const void* {key}" for key in inputs), *(f"const int* {key}" for key in constants)])
    function = DeviceFunction(
        _HEADERS, constants_text(types, {**shared, **described}), f"{parameters}, void* y",
        f"hawq::{name}<P>({arguments});",
    )  # fmt: skip
    tensors = [
        *((key, source.shape(site.batch), source.dtype) for key, source in inputs.items()),
        *((key, array.shape, "int32") for key, array in constants.items()),
        ("y", out.shape(site.batch), out.dtype),
    ]
    return start_threads(function, tensors, pixels * vectors, _THREADS), tuple(constants.values())
