"""Depthwise convolutions summed four rows at a time are exact, and are what common layers come to."""

from dataclasses import replace

import pytest
import torch
from kernel_runner import backend_for, check, requantizing, site_of

from hawq.integer import TensorType
from hawq.integer import ops as o
from hawq.integer.geometry import pooled_size
from tvm_export.definitions import define
from tvm_export.lane_products import multiplies_lanes

# (channels, (H, W), kernel, stride, padding, dilation)
LAYERS = {
    "3x3": (32, (7, 9), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "strided": (35, (8, 7), (3, 3), (2, 2), (0, 1, 0, 1), (1, 1)),
    "unpadded": (16, (6, 5), (2, 3), (1, 2), (0, 0, 0, 0), (1, 1)),
    "more rows than a number holds": (24, (9, 6), (7, 5), (1, 1), (3, 3, 2, 2), (1, 1)),
    "four rows": (16, (5, 8), (4, 1), (1, 1), (2, 1, 0, 0), (1, 1)),
    "dilated": (16, (9, 11), (3, 3), (1, 2), (2, 0, 0, 3), (2, 3)),
    "windows beyond the map": (16, (2, 2), (5, 5), (1, 1), (4, 4, 4, 4), (1, 1)),
}
KINDS = {
    "u8, zero point": (8, False, 131),
    "s8": (8, True, 0),
    "u4": (4, False, 0),
    "s4, zero point": (4, True, -3),
}


@pytest.fixture(scope="module", params=["znver4", "alderlake"])
def backend(request):
    return backend_for(request.param)


def layer(name, kind, fill=0):
    """Return a random depthwise convolution, its input codes, their type and its constants."""
    channels, size, kernel, stride, padding, dilation = LAYERS[name]
    source = TensorType((channels, *size), KINDS[kind][0], KINDS[kind][1], 1.0, KINDS[kind][2])
    low, high = source.range
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(low, high + 1, (2, *source.shape), generator=generator, dtype=torch.int32)
    weight = torch.randint(-128, 128, (channels, 1, *kernel), generator=generator, dtype=torch.int8)
    bias = torch.randint(-999, 999, (channels,), generator=generator, dtype=torch.int32)
    ratio = 1 / (high * weight[0].numel() ** 0.5)
    out = TensorType((channels, *pooled_size(size, kernel, stride, padding, dilation)), 8, True)
    op = o.Conv2d(
        name="op", inputs=("x",), out=out, lo=-128, hi=127, stride=stride, padding=padding, dilation=dilation,
        groups=channels, fill=fill,
    )  # fmt: skip
    return op, [x], [source], {"weight": weight, "bias": bias, **requantizing(channels, ratio)}


def sums_rows(backend, op, types, constants):
    """Tell whether the kernel that a backend makes of an op sums four rows at a time."""
    site = replace(site_of(backend, op, types, constants), instruction=backend.instruction)
    return "windows" in {tensor.op.name for tensor in define(site).outs[0].op.input_tensors}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_every_integer_is_exact(backend, name, kind):
    op, inputs, types, constants = layer(name, kind)
    assert sums_rows(backend, op, types, constants)
    check(backend, op, inputs, types, constants)


@pytest.mark.parametrize(("kind", "fill"), [("u8, zero point", 124), ("s8", -128), ("s4, zero point", -5)])
def test_padding_with_a_code(backend, kind, fill):
    check(backend, *layer("dilated", kind, fill))


@pytest.mark.parametrize(("spare", "summed"), [(-1, False), (0, True)])
def test_sums_that_could_leave_int32_are_formed_otherwise(backend, spare, summed):
    """The codes as stored times the weights come to 9 * 255 * 127 more than the certificate allows for."""
    channels = 16
    kind = TensorType((channels, 4, 4), 8, False, 1.0, 255)
    furthest = 9 * 255 * 127
    bias = torch.full((channels,), -(2**31) + furthest + spare, dtype=torch.int32)
    constants = {"weight": torch.full((channels, 1, 3, 3), 127, dtype=torch.int8), "bias": bias}
    out = TensorType((channels, 2, 2), 32, True)
    op = o.Conv2d(
        name="op", inputs=("x",), out=out, lo=out.range[0], hi=out.range[1], stride=(1, 1), padding=(0, 0, 0, 0),
        dilation=(1, 1), groups=channels, fill=0,
    )  # fmt: skip
    assert sums_rows(backend, op, [kind], constants) == summed
    check(backend, op, [torch.full((1, *kind.shape), 255, dtype=torch.int32)], [kind], constants)


@pytest.mark.parametrize("cpu", ["haswell", "x86-64"])
def test_other_instructions_take_another_way(cpu):
    backend = backend_for(cpu)
    assert not multiplies_lanes(backend.instruction)
    op, _, types, constants = layer("3x3", "s8")
    assert not sums_rows(backend, op, types, constants)
