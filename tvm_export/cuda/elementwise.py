"""Call the kernels of elementwise.cuh: ops whose threads read and write vectors of neighbouring channels."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import tvm

from hawq.integer import ops as o
from tvm_export.cuda.chain import HEADERS, Chain, is_pointwise, limits
from tvm_export.cuda.source import DeviceFunction, Launch, codes, constants_text, start
from tvm_export.definitions import Site

__all__ = ["elementwise", "has_vectors"]

_THREADS = 128
_WIDE, _NARROW = 16, 4
"""Channels of a thread: 16 bytes of 8-bit codes where there is work for all, fewer where the tensor is small."""
_BUSY = 1 << 16
"""Threads that keep a GPU busy."""

_Parts = tuple[str, dict[str, int | bool]]
_POOLS: dict[type[o.Op], Callable[[Any, Site], _Parts]] = {}
"""By op type: what gives the name of the function and the constants it asks for."""

_OpT = TypeVar("_OpT", bound=o.Op)


def _pools(kind: type[_OpT]) -> Callable[[Callable[[_OpT, Site], _Parts]], Callable[[_OpT, Site], _Parts]]:
    def register(function: Callable[[_OpT, Site], _Parts]) -> Callable[[_OpT, Site], _Parts]:
        _POOLS[kind] = function
        return function

    return register


@_pools(o.MaxPool2d)
def _max_pool(op: o.MaxPool2d, site: Site) -> _Parts:
    return "max_pool", {"Lo": op.out.range[0], **_window(op, site, op.dilation)}


@_pools(o.AvgPool2d)
def _average_pool(op: o.AvgPool2d, site: Site) -> _Parts:
    one = site.constants["multiplier"].size == 1
    zero = site.inputs[0].type.zero_point
    return "average_pool", {"OneCount": one, "ZeroA": zero, **limits(op), **_window(op, site, (1, 1))}


def _window(op: Any, site: Site, dilation: tuple[int, int]) -> dict[str, int | bool]:
    (source,) = site.inputs
    _, height, width = source.chw
    _, out_height, out_width = site.out.chw
    return {
        "Height": height, "Width": width, "OutHeight": out_height, "OutWidth": out_width, "StoredA": source.channels,
        "KernelH": op.kernel[0], "KernelW": op.kernel[1], "StrideH": op.stride[0], "StrideW": op.stride[1],
        "Top": op.padding[0], "Left": op.padding[2], "DilationH": dilation[0], "DilationW": dilation[1],
    }  # fmt: skip


def has_vectors(site: Site) -> bool:
    """Tell whether the op has a kernel here, and its tensors hold whole vectors of channels."""
    stored = [storage.channels for storage in (*site.inputs, site.out)]
    return (is_pointwise(site) or type(site.op) in _POOLS) and all(channels % _WIDE == 0 for channels in stored)


def elementwise(site: Site) -> tuple[tvm.tirx.PrimFunc, tuple[np.ndarray, ...]]:
    """Return the kernel of an op and its followers, and its constants."""
    chain, own, described = Chain(site), {}, {}
    structs, body = chain.structs, chain.whole
    stored = min(chain.stored, *(source.channels for source in site.inputs))
    pixels = site.batch * site.out.chw[1] * site.out.chw[2]
    count = _WIDE if pixels * stored // _WIDE >= _BUSY else _NARROW
    if not is_pointwise(site):
        name, described = _POOLS[type(site.op)](site.op, site)
        own = {key: np.ascontiguousarray(site.constants[key]) for key in site.op.constants}
        structs += f"\n  using A = {codes(site.inputs[0], count)};"
        body = f"{chain.store}\n  hawq::{name}<P>({', '.join(['x', *own, 'store'])});"
    sizes = {"Pixels": pixels, "Vectors": stored // count, "Codes": count, "Threads": _THREADS, **described}
    arguments = chain.arguments(own)
    function = DeviceFunction((*HEADERS, "elementwise.cuh"), f"{structs}\n  {constants_text(sizes)}", arguments, body)
    blocks = -(-pixels * (stored // count) // _THREADS)
    return start(arguments, [Launch(function, (blocks, 1), _THREADS)]), tuple(chain.constants(own).values())
