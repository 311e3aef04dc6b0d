"""Choose how a CPU computes a dense convolution: every decision that a measurement may overturn is taken here."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tvm_export.instructions import Instruction
from tvm_export.storage import round_up

__all__ = ["Order", "Plan", "Product", "Tile", "choose", "plans"]

_LONG_SUM, _WIDE_TILE, _LARGE_WEIGHT = 512, 10, 2**20
"""Products in an output and pixels in a tile that hide unpacking; weights that are waited for anyway (on a Zen 5)."""

_STACK = 15
"""Most blocks of sums in a tile: 16 of 64 bytes would exceed the 1024 bytes that TVM keeps on the stack."""

_PROMISING = 0.85
"""Share of the best tile's useful work below which none is worth a measurement."""


class Order(StrEnum):
    """What the outermost loop goes over, and threads share.

    ROWS: rows of the output; a row's pixels, kept in the cache, meet all weights.
    BLOCKS: blocks of output channels; their weights, kept in the cache, meet all pixels.
    """

    ROWS = "rows"
    BLOCKS = "blocks"


@dataclass(frozen=True)
class Product:
    """What a dense convolution comes to.

    Attributes:
        height: of the output.
        width: of the output.
        blocks: of 16 output channels.
        depth: products that are summed up in an output.
        weights: how many there are.
        packable: whether weights may be two a byte.
    """

    height: int
    width: int
    blocks: int
    depth: int
    weights: int
    packable: bool = False


@dataclass(frozen=True)
class Tile:
    """Sums that are kept in registers. The last tiles may hang over the output; what lies beyond is computed in vain.

    Attributes:
        rows: of the output.
        pixels: of each row.
        blocks: of output channels; they divide the layer's.
    """

    rows: int
    pixels: int
    blocks: int

    def __str__(self) -> str:
        """Return rows x pixels x blocks."""
        return f"{self.rows}x{self.pixels}x{self.blocks}"


@dataclass(frozen=True)
class Plan:
    """How a dense convolution runs.

    Attributes:
        tile: of registers.
        packed: whether weights lie two a byte and are unpacked in registers.
        order: of the outer loops.
    """

    tile: Tile
    packed: bool = False
    order: Order = Order.ROWS

    def __str__(self) -> str:
        """Return for example `1x7x2 packed, rows`."""
        return f"{self.tile}{' packed' if self.packed else ''}, {self.order}"


def choose(product: Product, instruction: Instruction) -> Plan:
    """Return the plan estimated to be fastest.

    Its tile lies in one row: which of two tiles of as many pixels is faster depends on the cache, and it is not
    estimated here.
    """
    tile = max(_tiles(product, instruction, rows=1), key=lambda tile: _worth(tile, product, instruction))
    return Plan(tile, packed=product.packable and _pays_to_pack(product, tile))


def plans(product: Product, instruction: Instruction) -> list[Plan]:
    """Return the plans that may be fastest: `choose`'s first, then those of tiles estimated to be faster first."""
    chosen = choose(product, instruction)
    worth = {
        tile: _worth(tile, product, instruction)
        for rows in range(1, min(product.height, _STACK) + 1)
        for tile in _tiles(product, instruction, rows)
    }
    useful = _PROMISING * worth[chosen.tile][0]
    tiles = sorted((tile for tile in worth if worth[tile][0] >= useful), key=lambda tile: worth[tile], reverse=True)
    packings = (False, True) if product.packable else (False,)
    others = (Plan(tile, packed, order) for tile in tiles for packed in packings for order in Order)
    return [chosen, *(plan for plan in others if plan != chosen)]


def _tiles(product: Product, instruction: Instruction, rows: int) -> Iterator[Tile]:
    """Return all tiles of some rows that fit the registers together with the weights of their blocks."""
    for pixels in range(1, min(product.width, _STACK // rows) + 1):
        most = min(_STACK // (rows * pixels), instruction.room // (rows * pixels + 1))
        for blocks in range(1, most + 1):
            if product.blocks % blocks == 0:
                yield Tile(rows, pixels, blocks)


def _worth(tile: Tile, product: Product, instruction: Instruction) -> tuple[float, float]:
    """Return the share of a cycle's work that is useful, and of equally useful tiles the products for each load."""
    pixels = tile.rows * tile.pixels
    useful = product.height / round_up(product.height, tile.rows) * product.width / round_up(product.width, tile.pixels)
    busy = min(1.0, pixels * tile.blocks / instruction.busy_sums, pixels / instruction.busy_pixels)
    return useful * busy, pixels * tile.blocks / (pixels + tile.blocks)


def _pays_to_pack(product: Product, tile: Tile) -> bool:
    """Tell whether a layer is as fast with packed weights: unpacking takes work for a tile, the shift for an output."""
    wide = tile.rows * tile.pixels >= _WIDE_TILE
    return (product.depth >= _LONG_SUM and wide) or product.weights >= _LARGE_WEIGHT
