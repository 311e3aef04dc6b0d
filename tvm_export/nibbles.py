"""Keep two 4-bit codes in a byte."""

import numpy as np
from tvm import tirx

from tvm_export.storage import Expr

__all__ = ["high", "low", "pack_nibbles"]


def pack_nibbles(codes: np.ndarray) -> np.ndarray:
    """Return uint8, two signed or unsigned 4-bit codes a byte along the last axis, the first in the low nibble."""
    nibbles = codes.astype(np.uint8) & 15
    return nibbles[..., ::2] | nibbles[..., 1::2] << 4


def low(byte: Expr) -> Expr:
    """Return 16 times the code in the low nibble of a uint8, int32."""
    return tirx.reinterpret("int8", tirx.shift_left(byte, tirx.const(4, "uint8"))).astype("int32")


def high(byte: Expr) -> Expr:
    """Return 16 times the code in the high nibble of a uint8, int32."""
    return tirx.reinterpret("int8", tirx.bitwise_and(byte, tirx.const(0xF0, "uint8"))).astype("int32")
