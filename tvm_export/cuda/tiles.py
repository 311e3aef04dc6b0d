"""Choose the tile of a convolution: every decision about shapes that a measurement may overturn is taken here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

__all__ = ["DEVICES", "TILES", "Device", "Gemm", "Plan", "Tile", "choose"]


@dataclass(frozen=True)
class Device:
    """What a choice depends on.

    Attributes:
        multiprocessors: of the largest common GPU of the architecture.
        shared_bytes: most shared memory of a block.
        asynchronous: whether copies into shared memory bypass the registers.
    """

    multiprocessors: int
    shared_bytes: int
    asynchronous: bool = True


DEVICES = {
    "sm_75": Device(40, 65536, asynchronous=False),  # T4
    "sm_80": Device(108, 166912),  # A100
    "sm_86": Device(84, 101376),  # RTX 3090
    "sm_89": Device(128, 101376),  # RTX 4090
    "sm_90": Device(132, 232448),  # H100, H200
}


@dataclass(frozen=True)
class Tile:
    """What a block computes, and how.

    Attributes:
        m: pixels.
        n: output channels.
        warps_m: rows of warps; each takes m / warps_m pixels, a multiple of 16.
        warps_n: columns of warps; each takes n / warps_n channels, a multiple of 16.
        step: bytes of a row (of the wider operand) that one step multiplies: 64 or 128.
        stages: steps held in shared memory, those under way included; at least 2.
    """

    m: int
    n: int
    warps_m: int
    warps_n: int
    step: int
    stages: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.warps_m * self.warps_n * 32

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block, where both operands are equally wide."""
        return (self.m + self.n) * self.step * self.stages

    def blocks(self, vector: int, architectures: Sequence[str]) -> int:
        """Return how many blocks a multiprocessor is to hold at least.

        That bounds the registers of a thread by 65536 / threads / blocks: its sums, what every thread needs, and for
        every row of pixels of which it copies a vector of so many bytes the place, and the vector on its way.
        """
        sums, rows = self.m * self.n // self.threads, self.m * self.step // vector // self.threads
        asynchronous = all(DEVICES[name].asynchronous for name in architectures)
        row = _REGISTERS_OF_ROW + (0 if asynchronous else vector // 4)
        return max(1, 65536 // self.threads // (sums + _REGISTERS + row * rows))


_REGISTERS, _REGISTERS_OF_ROW = 80, 5
"""Of a thread beside its sums: fragments, addresses, the constants of its channels; and for each row it copies."""

TILES = {
    Tile(128, 128, 2, 2, 64, 4): 1.0,
    Tile(128, 128, 2, 4, 64, 4): 0.9,
    Tile(128, 64, 2, 2, 64, 4): 0.85,
    Tile(64, 64, 2, 2, 64, 4): 0.65,
    Tile(64, 64, 2, 2, 128, 3): 0.7,
    Tile(64, 32, 2, 2, 64, 4): 0.45,
    Tile(64, 32, 2, 2, 128, 4): 0.5,
}
"""Tiles, each with the share of the tensor cores' peak that a multiprocessor full of them is taken to reach: the more
products for each byte brought, the more. Estimates; no device has confirmed them yet."""

_PRODUCTS = 4096
"""Bytes multiplied by bytes in a cycle of a multiprocessor."""

_BUSY_WARPS = 8
"""Warps that keep the tensor cores of a multiprocessor busy; fewer wait for their own loads."""

_BLOCK_CYCLES = 1500
"""What a block costs beside its products: the first copies' latency and the epilogue."""

_FINISH_CYCLES, _SLICE_BYTES = 3000, 1000
"""Another launch, and the bytes of sums a cycle of the device moves."""

_SLICES = (1, 2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True)
class Gemm:
    """The product a convolution comes to.

    Attributes:
        pixels: of all images.
        channels: stored, of the output.
        row_bytes: of a window in the wider operand.
        vector: bytes of a pixel that are copied at once: 16, or 4 of an image.
    """

    pixels: int
    channels: int
    row_bytes: int
    vector: int = 16


@dataclass(frozen=True)
class Plan:
    """How a convolution is cut up.

    Attributes:
        tile: of a block.
        slices: parts of the rows that different blocks sum up; a second kernel adds them.
    """

    tile: Tile
    slices: int = 1

    def tiles(self, gemm: Gemm) -> tuple[int, int]:
        """Return how many tiles of pixels and of channels there are."""
        return -(-gemm.pixels // self.tile.m), -(-gemm.channels // self.tile.n)

    def steps(self, gemm: Gemm) -> int:
        """Return the steps of the longest slice."""
        return -(-_steps(self.tile, gemm) // self.slices)


def _steps(tile: Tile, gemm: Gemm) -> int:
    return -(-gemm.row_bytes // tile.step)


def _cycles(plan: Plan, gemm: Gemm, architectures: Sequence[str]) -> float:
    """Estimate how long a plan takes by the blocks of the busiest multiprocessor."""
    tile, (tiles_m, tiles_n), device = plan.tile, plan.tiles(gemm), DEVICES[architectures[0]]
    blocks = -(-tiles_m * tiles_n * plan.slices // device.multiprocessors)  # one after another or side by side
    resident = min(blocks, tile.blocks(gemm.vector, architectures))
    rate = _PRODUCTS * TILES[tile] * min(1.0, resident * tile.threads / 32 / _BUSY_WARPS)
    products = blocks * plan.steps(gemm) * tile.step * tile.m * tile.n
    cycles = products / rate + -(-blocks // resident) * _BLOCK_CYCLES
    if plan.slices > 1:
        cycles += _FINISH_CYCLES + 2 * 4 * plan.slices * gemm.pixels * gemm.channels / _SLICE_BYTES
    return cycles


def choose(gemm: Gemm, architectures: Sequence[str]) -> Plan:
    """Return the plan estimated to be fastest on the first architecture that fits all: they share a launch."""
    room = min(DEVICES[name].shared_bytes for name in architectures)
    plans = [
        Plan(tile, slices)
        for tile in TILES
        if tile.shared_bytes <= room
        for slices in _SLICES
        if -(-_steps(tile, gemm) // -(-_steps(tile, gemm) // slices)) == slices  # none is empty
    ]
    best = min(plans, key=lambda plan: _cycles(plan, gemm, architectures))
    return replace(best, tile=replace(best.tile, stages=max(2, min(best.tile.stages, best.steps(gemm)))))
