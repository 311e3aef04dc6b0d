"""Plans of dense convolutions: all give the same integers, fit the registers, and the first is a sensible choice."""

import pytest
import torch
from kernel_runner import BACKENDS, check, requantizing, site_of

from hawq.integer import TensorType
from hawq.integer import ops as o
from hawq.integer.geometry import pooled_size
from tvm_export.instructions import BLOCK, INSTRUCTIONS
from tvm_export.plans import Order, Plan, Product, Tile, choose, plans

UNPACKING = next(instruction for instruction in INSTRUCTIONS if instruction.unpacks)

# (input channels, output channels, (H, W), kernel, stride, padding, dilation)
LAYERS = {
    "tiles over both ends": (24, 40, (9, 11), (3, 3), (1, 2), (1, 1, 1, 1), (1, 1)),
    "dilated": (16, 16, (10, 7), (2, 3), (2, 1), (0, 1, 0, 0), (2, 2)),
    "read as stored": (32, 64, (4, 6), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "one pixel": (32, 96, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
}


def layer(name, kind):
    """Return a random convolution with weights of 4 bits, its input codes, their type and its constants."""
    channels, outputs, size, kernel, stride, padding, dilation = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(kind.range[0], kind.range[1] + 1, (2, *kind.shape), generator=generator, dtype=torch.int32)
    weight = torch.randint(-8, 8, (outputs, channels, *kernel), generator=generator, dtype=torch.int8)
    bias = torch.randint(-999, 999, (outputs,), generator=generator, dtype=torch.int32)
    constants = {"weight": weight, "bias": bias, **requantizing(outputs, 0.001)}
    out = TensorType((outputs, *pooled_size(size, kernel, stride, padding, dilation)), 8, True)
    op = o.Conv2d(
        name="op", inputs=("x",), out=out, lo=-128, hi=127, stride=stride, padding=padding, dilation=dilation, groups=1
    )
    return op, [x], [kind], constants


@pytest.mark.parametrize("target", BACKENDS)
@pytest.mark.parametrize("name", LAYERS)
def test_all_plans_give_the_same_integers(name, target):
    channels, _, size, *_ = LAYERS[name]
    given = layer(name, TensorType((channels, *size), 8, False, 1.0, 131))
    backend = BACKENDS[target]()
    found = backend.plans(site_of(backend, given[0], given[2], given[3], batch=2))
    assert {plan.order for plan in found} == set(Order)
    assert {plan.packed for plan in found} == {False, backend.instruction.unpacks}
    for plan in found[:: len(found) // 6 + 1]:
        check(backend, *given, plan)
    signed = layer(name, TensorType((channels, *size), 8, True))
    check(backend, *signed, found[-1])


def test_tiles_of_several_rows_are_among_them():
    found = plans(Product(28, 14, 1, 64, 1024), UNPACKING)
    assert {plan.tile.rows for plan in found} > {1, 7}


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=lambda instruction: instruction.name)
@pytest.mark.parametrize("blocks", [1, 2, 4, 12, 63, 128])
def test_tiles_fit_registers_and_waste_little(instruction, blocks):
    for width in range(1, 300):
        product = Product(width, width, blocks, 64, 64 * 16 * blocks)
        chosen = choose(product, instruction).tile
        assert chosen.rows == 1
        assert width < 60 or -(-width // chosen.pixels) * chosen.pixels <= 1.1 * width
        for tile in {plan.tile for plan in plans(product, instruction)} if width % 50 == 7 else {chosen}:
            assert blocks % tile.blocks == 0
            pixels = tile.rows * tile.pixels
            vectors = (pixels + 1) * tile.blocks * BLOCK // instruction.lanes  # sums and weights
            assert vectors < instruction.registers
            assert pixels * tile.blocks * BLOCK * 4 < 1024
            assert max(tile.rows, tile.pixels) <= width


def test_the_default_comes_first_and_none_comes_twice():
    for packable in (False, True):
        product = Product(7, 7, 32, 4608, 512 * 4608, packable)
        found = plans(product, UNPACKING)
        assert found[0] == choose(product, UNPACKING)
        assert len(set(found)) == len(found)
        assert {plan.packed for plan in found} == {False, packable}


@pytest.mark.parametrize(
    ("height", "width", "depth", "outputs", "packed"),
    [(13, 13, 576, 16, True), (7, 7, 4608, 512, True), (7, 7, 960, 320, False), (13, 13, 32, 16, False)],
)
def test_packing_must_pay(height, width, depth, outputs, packed):
    product = Product(height, width, outputs // 16, depth, depth * outputs, packable=True)
    assert choose(product, UNPACKING).packed == packed


def test_a_plan_reads_well():
    assert str(Plan(Tile(1, 7, 2))) == "1x7x2, rows"
    assert str(Plan(Tile(2, 7, 1), packed=True, order=Order.BLOCKS)) == "2x7x1 packed, blocks"
