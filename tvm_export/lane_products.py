"""Add to TVM: sums of products of bytes in every lane, with weights of its own each.

A dense convolution multiplies the same four bytes with weights of 16 channels; here every channel brings its own four.
"""

import functools

from tvm import tirx

from tvm_export.instructions import INSTRUCTIONS, Instruction
from tvm_export.operations import add_operation
from tvm_export.storage import Expr

__all__ = ["add_products", "multiplies_lanes"]


def multiplies_lanes(instruction: Instruction) -> bool:
    """Tell whether an instruction sums products of bytes without the help of LLVM."""
    return bool(instruction.intrinsic) and instruction.operand == "uint8"


def add_products(instruction: Instruction, total: Expr, activations: Expr, weights: Expr) -> Expr:
    """Return total + sum of a_i * b_i, int32, of the four unsigned bytes a_i and signed b_i of two int32 numbers.

    Args:
        instruction: one that multiplies lanes.
        total: int32, as is the result; neither leaves it.
        activations: the a_i, the lowest first.
        weights: the b_i.
    """
    return tirx.call_intrin("int32", _name(instruction), total, activations, weights)


def _name(instruction: Instruction) -> str:
    return f"tirx.hawq_lane_products_{instruction.feature}"


def _lower(instruction: Instruction, call: Expr) -> Expr:
    """Write the operation as the instruction, once for each vector."""
    lanes, whole = instruction.lanes, int(str(call.ty.dtype).partition("x")[2])
    parts = []
    for first in range(0, whole, lanes):
        total, a, b = (_part(number, first, lanes, whole) for number in call.args)
        bytes_a, bytes_b = tirx.reinterpret(f"uint8x{4 * lanes}", a), tirx.reinterpret(f"int8x{4 * lanes}", b)
        parts.append(tirx.call_llvm_pure_intrin(f"int32x{lanes}", instruction.intrinsic, total, bytes_a, bytes_b))
    return parts[0] if len(parts) == 1 else tirx.Shuffle(parts, list(range(whole)))


def _part(vector: Expr, first: int, lanes: int, whole: int) -> Expr:
    return vector if lanes == whole else tirx.Shuffle([vector], list(range(first, first + lanes)))


for _instruction in filter(multiplies_lanes, INSTRUCTIONS):
    add_operation(_name(_instruction), add_products.__doc__, functools.partial(_lower, _instruction))
