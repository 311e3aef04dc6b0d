"""Say with which instruction a CPU sums products of codes: every one here is exact, none saturates."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["BLOCK", "INSTRUCTIONS", "PORTABLE", "Instruction", "best_instruction"]

BLOCK = 16
"""Output channels in a block of weights, of every instruction: a vector of 512 bits, two of 256."""


@dataclass(frozen=True)
class Instruction:
    """What multiplies blocks of weights, and the tile of accumulators that suits it.

    Attributes:
        name: mnemonic and bits of a vector.
        feature: what LLVM calls the extension that it belongs to; empty for code that runs anywhere.
        intrinsic: what LLVM calls it; empty where products are left to LLVM's own choice.
        lanes: int32 sums in a vector.
        operand: element type of activations in a product.
        depth: input channels multiplied at once.
        sums: most blocks of accumulators in a register tile.
        busy_sums: of these, as many as hide the latency of a multiplication.
        busy_pixels: pixels in a tile that make up for fetching a block of weights.
        unpacks: whether weights of at most 4 bits may stay two a byte; unpacking costs more than it saves elsewhere.
    """

    name: str
    feature: str
    intrinsic: str
    lanes: int
    operand: str
    depth: int
    sums: int
    busy_sums: int
    busy_pixels: int
    unpacks: bool = False


_VNNI512 = Instruction(
    "vpdpbusd, 512 bits", "avx512vnni", "llvm.x86.avx512.vpdpbusd.512", lanes=16, operand="uint8", depth=4,
    sums=15, busy_sums=12, busy_pixels=3, unpacks=True,
)  # fmt: skip
"""Sums of 64 bytes: 16 would exceed the 1024 bytes TVM keeps on the stack. Busy as measured on a Zen 5."""

PORTABLE = Instruction(
    "portable", "", "", lanes=16, operand="uint8", depth=4, sums=15, busy_sums=12, busy_pixels=3
)  # fmt: skip

INSTRUCTIONS = (_VNNI512, PORTABLE)
"""Every instruction, the fastest first."""


def best_instruction(has_feature: Callable[[str], bool]) -> Instruction:
    """Return the fastest instruction of a CPU.

    Args:
        has_feature: tells whether the CPU has an extension, by LLVM's name.
    """
    return next(found for found in INSTRUCTIONS if not found.feature or has_feature(found.feature))
