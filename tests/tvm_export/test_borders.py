"""Kernels pass over rows of the border where these add nothing, and only there; every integer stays."""

from dataclasses import replace

import pytest
import torch
from kernel_runner import CPUS, backend_for, check, requantizing, site_of

from hawq.integer import TensorType
from hawq.integer import ops as o
from hawq.integer.geometry import pooled_size
from tvm_export.plans import Order, Plan, Tile

# (input channels, (H, W), kernel, stride, padding, dilation)
LAYERS = {
    "3x3": (32, (7, 7), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "strided": (16, (8, 6), (7, 3), (2, 1), (3, 2, 1, 1), (1, 1)),
    "dilated": (16, (9, 5), (3, 1), (1, 1), (4, 3, 0, 0), (4, 1)),
    "windows beyond the map": (8, (2, 3), (3, 3), (2, 1), (4, 5, 0, 0), (1, 1)),
}
PLANS = [Plan(Tile(1, 2, 1)), Plan(Tile(2, 1, 1)), Plan(Tile(3, 2, 1), order=Order.BLOCKS)]


def layer(name, kind, fill=0):
    """Return a random convolution, its input codes, their type and its constants."""
    channels, size, kernel, stride, padding, dilation = LAYERS[name]
    given = TensorType((channels, *size), *kind)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(given.range[0], given.range[1] + 1, (2, *given.shape), generator=generator, dtype=torch.int32)
    weight = torch.randint(-127, 128, (16, channels, *kernel), generator=generator, dtype=torch.int8)
    constants = {"weight": weight, "bias": torch.arange(16, dtype=torch.int32), **requantizing(16, 0.003)}
    out = TensorType((16, *pooled_size(size, kernel, stride, padding, dilation)), 8, True)
    op = o.Conv2d(name="op", inputs=("x",), out=out, lo=-128, hi=127, stride=stride, padding=padding,
                  dilation=dilation, groups=1, fill=fill)  # fmt: skip
    return op, [x], [given], constants


def asks(backend, given, plan):
    """Tell whether a kernel asks where rows lie."""
    op, _, types, constants = given
    function = backend.kernel(replace(site_of(backend, op, types, constants), plan=plan)).function
    return any(line.strip().startswith("if ") for line in str(function).splitlines())


@pytest.mark.parametrize("cpu", ["znver4", "haswell", "x86-64"])
@pytest.mark.parametrize("name", LAYERS)
def test_rows_outside_of_the_map_are_passed_over(cpu, name):
    backend, given = backend_for(cpu), layer(name, (8, False))
    assert given[0].out.shape[1] >= 3
    for plan in PLANS:
        check(backend, *given, plan)
        assert asks(backend, given, plan)


@pytest.mark.parametrize("cpu", CPUS)
def test_border_that_counts_is_summed(cpu):
    """Bytes hold signed codes and those with a zero point moved: their border is not 0. 16-bit operands lose both."""
    backend = backend_for(cpu)
    for kind in ((8, True), (8, False, 1.0, 7)):
        given = layer("3x3", kind)
        check(backend, *given, PLANS[0])
        assert asks(backend, given, PLANS[0]) == (backend.instruction.operand == "int16")
    filled = layer("3x3", (8, False), fill=3)
    check(backend, *filled, PLANS[0])
    assert not asks(backend, filled, PLANS[0])
