"""Every op's CPU kernel gives the reference executor's integers, with VNNI and without."""

import platform

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_runner import run_kernel
from strategies import CASES

from hawq.integer import TensorType, execute_op
from hawq.integer import ops as o
from hawq.integer.arithmetic import dyadic
from hawq.integer.certificate import partial_sum_bound
from tvm_export.llvm import LlvmBackend

PORTABLE = "x86-64-v2" if platform.machine() == "x86_64" else "generic"
INT32 = (-(2**31), 2**31 - 1)


@pytest.fixture(scope="module", params=["this CPU", "portable"])
def backend(request):
    return LlvmBackend() if request.param == "this CPU" else LlvmBackend(PORTABLE)


def check(backend, op, inputs, types, constants):
    expected = execute_op(op, inputs, types, constants)
    assert torch.equal(run_kernel(backend, op, inputs, types, constants), expected)


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
@settings(max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_kernel_equals_the_reference(backend, kind, data):
    check(backend, *data.draw(CASES[kind]))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def requantizing(outputs, ratio):
    multiplier, shift = dyadic(torch.full((outputs,), ratio, dtype=torch.float64))
    return {"multiplier": multiplier.int(), "shift": shift.int()}


# (input channels, output channels, (H, W), kernel, stride, padding, dilation, groups)
SHAPES = {
    "image": (3, 33, (9, 14), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    "several blocks": (20, 70, (3, 28), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "prime width": (5, 40, (2, 37), (1, 3), (1, 1), (0, 0, 1, 1), (1, 1), 1),
    "width of a tile and one": (16, 16, (2, 15), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "plain 1x1": (64, 128, (4, 7), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "strided 1x1": (32, 48, (8, 14), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    "asymmetric": (17, 19, (7, 8), (5, 3), (2, 1), (1, 3, 0, 2), (1, 2), 1),
    "unpadded 3x3": (16, 16, (5, 9), (3, 3), (1, 1), (0, 0, 0, 0), (2, 2), 1),
    "depthwise": (35, 35, (6, 7), (3, 3), (2, 2), (0, 1, 0, 1), (1, 1), 35),
    "depthwise, two outputs each": (18, 36, (5, 5), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 18),
    "groups of a block": (32, 64, (4, 5), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 2),
    "ragged groups": (15, 21, (4, 5), (3, 1), (1, 2), (1, 1, 0, 0), (1, 1), 3),
}


@pytest.mark.parametrize("source", [(8, False, 0), (8, False, 131), (8, True, 0), (4, True, 0), (16, True, 0)], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_convolutions_of_larger_shapes(backend, shape, source):
    channels, outputs, size, kernel, stride, padding, dilation, groups = SHAPES[shape]
    kind = TensorType((channels, *size), source[0], source[1], 1.0, source[2])
    out_size = tuple(
        (size[i] + padding[2 * i] + padding[2 * i + 1] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i in range(2)
    )
    low, high = kind.range
    x = torch.randint(low, high + 1, (2, *kind.shape), generator=generator(1), dtype=torch.int32)
    weight = torch.randint(-127, 128, (outputs, channels // groups, *kernel), generator=generator(2), dtype=torch.int8)
    bias = torch.randint(-999, 999, (outputs,), generator=generator(3), dtype=torch.int32)
    deviation = 70 * high * (channels // groups * kernel[0] * kernel[1]) ** 0.5
    constants = {"weight": weight, "bias": bias, **requantizing(outputs, 60 / deviation)}
    op = o.Conv2d(
        name="op", inputs=("x",), out=TensorType((outputs, *out_size), 8, True), lo=-128, hi=127, stride=stride,
        padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip
    check(backend, op, [x], [kind], constants)


# Certified layers whose parts leave int32 without the zero point in the sum: (input, weight, bias, row, codes)
EDGES = {
    "bias near the limit, few bits": ((4, True, 0), 7, -(2**31) + 8 * 7 * 64, 64, -8),
    "bias near the limit, zero point": ((8, False, 255), 127, -(2**31) + 255 * 127 * 64, 64, 0),
    "long rows, signed": ((8, True, 0), 127, 0, 70_000, 127),
    "long rows, zero point": ((8, False, 128), 127, 0, 70_000, 255),
    "longest certified row": ((8, False, 0), 127, 0, (2**31 - 1) // (255 * 127), 255),
}


@pytest.mark.parametrize("accumulates", [False, True], ids=["codes", "accumulators"])
@pytest.mark.parametrize("edge", EDGES)
def test_sums_at_the_edge_of_int32(backend, edge, accumulates):
    kind, weight, bias, row, code = EDGES[edge]
    source = TensorType((row,), kind[0], kind[1], 1.0, kind[2])
    constants = {"weight": torch.full((3, row), weight, dtype=torch.int8), "bias": torch.full((3,), bias).int()}
    lo, hi = partial_sum_bound(constants["weight"], constants["bias"], source)
    assert INT32[0] <= lo <= hi <= INT32[1]  # the certificate lets the layer pass
    out = TensorType((3,), 32 if accumulates else 16, True)
    constants |= {} if accumulates else requantizing(3, 2.0**-16)
    op = o.Linear(name="op", inputs=("x",), out=out, lo=out.range[0], hi=out.range[1])
    check(backend, op, [torch.full((1, row), code, dtype=torch.int32)], [source], constants)


@pytest.mark.parametrize("zero_point", [0, 77, -(2**31)])
def test_requantization_of_extreme_accumulators(backend, zero_point):
    source = TensorType((4, 1, 2), 32, True, 1.0, zero_point)
    out = TensorType((4, 1, 2), 8, False, 1.0, 3)
    x = torch.tensor([*INT32, 0, 1, -1, 77, 2**30, -(2**30)], dtype=torch.int32).view(1, 4, 1, 2)
    op = o.Requantize(name="op", inputs=("x",), out=out, lo=0, hi=255)
    check(backend, op, [x], [source], requantizing(1, 2.0**-25))


@pytest.mark.parametrize("scale", [0.1, 1 / 3, 0.00784313])
def test_input_codes_next_to_ties(backend, scale):
    scale = float(torch.tensor(scale))
    tie = ((torch.arange(-129, 128, dtype=torch.float64) + 0.5) * scale).float()
    below, above = (torch.nextafter(tie, torch.full_like(tie, limit)) for limit in (-1e9, 1e9))
    image = torch.stack([below, tie, above]).view(1, 3, 1, -1)
    out = TensorType(tuple(image.shape[1:]), 8, True, scale)
    op = o.QuantizeInput(name="op", inputs=(), out=out, lo=-128, hi=127)
    reciprocal = torch.round(image * (1 / torch.tensor(scale))).clamp(-128, 127).int()
    assert not torch.equal(execute_op(op, [image], [], {}), reciprocal)  # these values tell a division from a product
    check(backend, op, [image], [], {})
