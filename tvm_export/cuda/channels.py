"""Say how the sums of a convolution become codes: what every kind of convolution tells epilogue.cuh."""

from typing import Any

import numpy as np

from tvm_export.cuda.chain import limits
from tvm_export.definitions import Site, offset_bias, per_channel

__all__ = ["HIGH_SHIFT", "padding_word", "requantization", "scaling"]

HIGH_SHIFT = 33
"""Shifts from here on leave the result in the upper word of a product."""


def _scaling(site: Site) -> tuple[np.ndarray, np.ndarray]:
    ones = np.ones(len(site.constants["bias"]), np.int32)
    return site.constants.get("multiplier", ones), site.constants.get("shift", ones)


def scaling(site: Site, channels: int) -> dict[str, np.ndarray]:
    """Return bias, multiplier and shift of every one of `channels` stored channels, int32.

    The zero point of the input leaves the sum through the bias.
    """
    bias = per_channel(offset_bias(site, site.inputs[0].type.zero_point), channels)
    multiplier, shift = (per_channel(array, channels, HIGH_SHIFT) for array in _scaling(site))
    return {"bias": bias, "multiplier": multiplier, "shift": shift}


def requantization(site: Site) -> dict[str, int | bool]:
    """Return the constants that Requantize of epilogue.cuh asks for."""
    op: Any = site.op
    _, shift = _scaling(site)
    return {"Accumulate": op.accumulates, "HighShifts": bool(shift.min() >= HIGH_SHIFT), **limits(op)}


def padding_word(site: Site) -> int:
    """Return 4 bytes of the code that pads the input, or 8 nibbles; 0 where nothing is padded."""
    op: Any = site.op
    source = site.inputs[0]
    if not any(getattr(op, "padding", ())):
        return 0
    code: int = source.type.zero_point + op.fill
    return (code & 15) * 0x11111111 if source.packed else (code & 255) * 0x01010101
