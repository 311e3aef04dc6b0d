"""Call the depthwise convolution of depthwise.cuh for a layer."""

from typing import Any

import numpy as np
import tvm

from hawq.integer import ops as o
from tvm_export.cuda.chain import HEADERS, Chain
from tvm_export.cuda.channels import padding_word, requantization, scaling
from tvm_export.cuda.source import DeviceFunction, Launch, constants_text, start
from tvm_export.definitions import Site

__all__ = ["depthwise", "is_depthwise"]

_HEADERS = ("instructions.cuh", *HEADERS, "epilogue.cuh", "depthwise.cuh")
_THREADS = 128
_BLOCK = {True: (1, 2), False: (2, 4)}
"""Rows and columns of pixels that a thread sums, by whether codes are nibbles: of those a word holds twice as many
channels. Every row of the input then serves two rows of the output."""


def is_depthwise(site: Site) -> bool:
    """Tell whether an op convolves every channel by itself, over codes of at most 8 bits."""
    op = site.op
    alone = isinstance(op, o.Conv2d) and op.groups == site.inputs[0].chw[0] == site.out.chw[0] > 1
    return alone and site.inputs[0].type.bits <= 8


def depthwise(site: Site) -> tuple[tvm.tirx.PrimFunc, tuple[np.ndarray, ...]]:
    """Return the kernel of a depthwise convolution and its followers, and its constants.

    Weights are bytes (KH, KW, channels); where the input is nibbles, the even ones of 8 channels come first, as
    widening yields them.
    """
    op: Any = site.op
    (source,), out, weight = site.inputs, site.out, site.constants["weight"]
    count = 8 if source.packed else 4
    _, height, width = source.chw
    channels, out_height, out_width = out.chw
    kernel_h, kernel_w = weight.shape[2:]
    rows, columns = (min(most, size) for most, size in zip(_BLOCK[source.packed], out.chw[1:], strict=True))
    sizes = constants_text(
        {
            "Height": height, "Width": width, "Stored": source.channels, "Images": site.batch,
            "OutHeight": out_height, "OutWidth": out_width, "OutStored": out.channels,
            "KernelH": kernel_h, "KernelW": kernel_w, "StrideH": op.stride[0], "StrideW": op.stride[1],
            "Top": op.padding[0], "Left": op.padding[2], "DilationH": op.dilation[0], "DilationW": op.dilation[1],
            "NibblesX": source.packed, "Signed": source.type.signed, "Fill": padding_word(site),
            "Rows": rows, "Columns": columns, "Threads": _THREADS, **requantization(site),
        }
    )  # fmt: skip
    spread = np.zeros((kernel_h, kernel_w, source.channels), np.int8)
    spread[..., :channels] = weight[:, 0].transpose(1, 2, 0)
    if source.packed:
        spread = spread.reshape(kernel_h, kernel_w, -1, 4, 2).swapaxes(3, 4).reshape(spread.shape)
    own = {"w": np.ascontiguousarray(spread), **scaling(site, max(source.channels, out.channels))}
    chain = Chain(site)
    arguments = chain.arguments(own)
    body = f"{chain.store}\n  hawq::convolve_channels<P>(x, w, {{bias, multiplier, shift}}, store);"
    function = DeviceFunction(_HEADERS, f"{chain.structs}\n  {sizes}", arguments, body)
    threads = site.batch * -(-out_height // rows) * -(-out_width // columns) * (source.channels // count)
    launch = Launch(function, (-(-threads // _THREADS), 1), _THREADS)
    return start(arguments, [launch]), tuple(chain.constants(own).values())
