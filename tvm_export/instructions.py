"""Say with which instruction a CPU sums products of codes: every one here is exact, none saturates."""

from collections.abc import Callable
from dataclasses import dataclass

from tvm_export.storage import round_up

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

    def tile(self, width: int, blocks: int) -> tuple[int, int]:
        """Return the tile of accumulators kept in registers: (pixels of a row, blocks of output channels).

        A last tile may hang over the end of the row; the sums beyond it are computed in vain. The tile that does most
        useful work in a cycle is taken, and of several the one with the fewest loads for a product.

        Args:
            width: pixels in a row of the output.
            blocks: blocks of 16 output channels; the tile's divide them.
        """
        tiles = [
            (pixels, count)
            for pixels in range(1, min(width, self.sums) + 1)
            for count in range(1, self.sums // pixels + 1)
            if blocks % count == 0
        ]

        def worth(tile: tuple[int, int]) -> tuple[float, float]:
            pixels, count = tile
            useful = width / round_up(width, pixels)
            busy = min(1.0, pixels * count / self.busy_sums, pixels / self.busy_pixels)
            return useful * busy, pixels * count / (pixels + count)

        return max(tiles, key=worth)


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
