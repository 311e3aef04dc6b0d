"""Hold what all convolutions share: weights, biases, the proof that sums fit int32, and what follows a sum."""

import numpy as np
import torch

from hawq.integer import LayerBound, TensorType
from hawq.integer.certificate import partial_sum_bound
from tvm_export.expressions import Code, Constants, Site, constant, requantized
from tvm_export.storage import Expr

__all__ = ["byte_sum_fits", "bytes_fit", "code_offset", "dense_weight", "epilogue", "offset_bias", "per_channel"]

_BYTE_OFFSET = 128
"""Added to signed codes, so that an unsigned byte holds them."""


def code_offset(site: Site) -> int:
    """Return what is added to codes to make them numbers that the instruction multiplies."""
    source = site.inputs[0].type
    if site.instruction.operand == "int16":
        return -source.zero_point
    return _BYTE_OFFSET if source.signed else 0


def dense_weight(site: Site) -> np.ndarray:
    """Return the weight codes as (O, I, KH, KW), int8."""
    weight = site.constants["weight"]
    return weight if weight.ndim == 4 else weight[:, :, None, None]


def _moved_bias(site: Site, zero: int) -> np.ndarray:
    total = site.constants["weight"].astype(np.int64).reshape(len(site.constants["bias"]), -1).sum(1)
    return site.constants["bias"].astype(np.int64) - zero * total


def offset_bias(site: Site, zero: int) -> np.ndarray:
    """Return bias - zero * sum(w), int32: what is left of the zero point when the sum runs over codes as stored.

    It wraps where `byte_sum_fits` is false.
    """
    return _moved_bias(site, zero).astype(np.int32)


def _accumulator_bits(site: Site) -> int:
    """Return the bits of the largest magnitude that the certificate lets an accumulator have."""
    weight, bias = (torch.from_numpy(site.constants[name]) for name in ("weight", "bias"))
    lo, hi = partial_sum_bound(weight, bias, site.inputs[0].type)
    return max(-lo, hi).bit_length()


def byte_sum_fits(site: Site, stored: TensorType, zero: int) -> bool:
    """Tell whether sum(b * w) + bias - zero * sum(w) stays in int32, b being the numbers as stored.

    The certificate bounds sum((x - zx) * w) + bias only: without the zero point both parts are larger, and may leave
    int32 where their total does not (rows of 66,000 weights, biases close to 2^31).

    Args:
        site: a convolution or linear layer.
        stored: type that holds every b.
        zero: the b of a code that stands for 0.
    """
    weight, bias = torch.from_numpy(site.constants["weight"]), torch.from_numpy(_moved_bias(site, zero))
    return LayerBound(site.op.name, *partial_sum_bound(weight, bias, stored)).fits_int32


def bytes_fit(site: Site) -> bool:
    """Tell whether the codes of a layer are bytes, and its sums over them as the instruction takes them fit int32."""
    source = site.inputs[0].type
    if source.bits > 8:
        return False
    stored = TensorType(source.shape, 8, signed=False)
    # the sums of 16-bit operands are those of the certificate
    return site.instruction.operand != "uint8" or byte_sum_fits(site, stored, source.zero_point + code_offset(site))


def per_channel(array: np.ndarray, channels: int, fill: int = 0) -> np.ndarray:
    """Return (O,) widened to the stored channels."""
    return np.pad(array, (0, channels - len(array)), constant_values=fill)


def epilogue(site: Site, bias: np.ndarray, total: Code) -> tuple[Constants, Code]:
    """Return the constants and the code of total + bias, requantized unless the output is the accumulator."""
    channels = site.out.channels
    b, b_array = constant(per_channel(bias, channels), "bias")
    if site.op.accumulates:
        return ((b, b_array),), lambda n, h, w, c: total(n, h, w, c) + b[c]
    shifts = site.constants["shift"]
    m, m_array = constant(per_channel(site.constants["multiplier"], channels), "multiplier")
    s, s_array = constant(per_channel(shifts, channels, fill=int(shifts.max())), "shift")

    bits = _accumulator_bits(site)

    def code(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        return requantized(site.op, [(total(n, h, w, c) + b[c], m[c])], s[c], shifts, bits)

    return ((b, b_array), (m, m_array), (s, s_array)), code
