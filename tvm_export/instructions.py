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
        registers: vectors that the CPU keeps.
        busy_sums: blocks of accumulators that hide the latency of a multiplication, as measured on a Zen 5.
        busy_pixels: pixels in a tile that make up for fetching a block of weights, as measured there, too.
        unpacks: whether weights of at most 4 bits may stay two a byte; unpacking costs more than it saves elsewhere.
    """

    name: str
    feature: str
    intrinsic: str
    lanes: int
    operand: str
    depth: int
    registers: int
    busy_sums: int
    busy_pixels: int
    unpacks: bool = False

    @property
    def room(self) -> int:
        """Blocks, of sums or of weights, that fit the registers beside the activations of a pixel."""
        return (self.registers - 1) // (BLOCK // self.lanes)


PORTABLE = Instruction(
    "portable", "", "", lanes=16, operand="uint8", depth=4, registers=32, busy_sums=12, busy_pixels=3
)  # fmt: skip

INSTRUCTIONS = (
    Instruction(
        "vpdpbusd, 512 bits", "avx512vnni", "llvm.x86.avx512.vpdpbusd.512", lanes=16, operand="uint8", depth=4,
        registers=32, busy_sums=12, busy_pixels=3, unpacks=True,
    ),
    Instruction(
        "vpdpbusd, 256 bits", "avxvnni", "llvm.x86.avx512.vpdpbusd.256", lanes=8, operand="uint8", depth=4,
        registers=16, busy_sums=4, busy_pixels=3,
    ),
    Instruction(
        "vpmaddwd, 512 bits", "avx512bw", "llvm.x86.avx512.pmaddw.d.512", lanes=16, operand="int16", depth=2,
        registers=32, busy_sums=6, busy_pixels=3,
    ),
    Instruction(
        "vpmaddwd, 256 bits", "avx2", "llvm.x86.avx2.pmadd.wd", lanes=8, operand="int16", depth=2,
        registers=16, busy_sums=4, busy_pixels=4,
    ),
    Instruction(
        "pmaddwd, 128 bits", "sse4.1", "llvm.x86.sse2.pmadd.wd", lanes=4, operand="int16", depth=2,
        registers=16, busy_sums=2, busy_pixels=2,
    ),
    PORTABLE,
)  # fmt: skip
"""Every instruction, the fastest first."""


def best_instruction(has_feature: Callable[[str], bool]) -> Instruction:
    """Return the fastest instruction of a CPU.

    Args:
        has_feature: tells whether the CPU has an extension, by LLVM's name.
    """
    return next(found for found in INSTRUCTIONS if not found.feature or has_feature(found.feature))
