"""Convolutions of every kind and shape are exact on the CPU, up to the edge of int32."""

import pytest
import torch
from kernel_runner import BACKENDS, check, requantizing
from tvm.sym.analyzer import Analyzer

from hawq.integer import TensorType
from hawq.integer import ops as o
from hawq.integer.certificate import partial_sum_bound
from hawq.integer.geometry import pooled_size
from tvm_export import plans
from tvm_export.definitions import Site, define
from tvm_export.llvm import LlvmBackend

INT32 = (-(2**31), 2**31 - 1)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return BACKENDS[request.param]()


def generator(seed):
    return torch.Generator().manual_seed(seed)


# (input channels, output channels, (H, W), kernel, stride, padding, dilation, groups)
SHAPES = {
    "image": (3, 33, (9, 14), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    "several blocks": (20, 70, (3, 28), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "prime width": (5, 40, (2, 37), (1, 3), (1, 1), (0, 0, 1, 1), (1, 1), 1),
    "width of a tile and one": (16, 16, (2, 15), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "last tile over the end": (4, 64, (3, 17), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "last tile over the end, strided": (8, 64, (5, 35), (2, 3), (1, 2), (0, 0, 1, 0), (1, 2), 1),
    "last tile over the end, 1x1": (16, 64, (2, 17), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "plain 1x1": (64, 128, (4, 7), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "strided 1x1": (32, 48, (8, 14), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    "asymmetric": (17, 19, (7, 8), (5, 3), (2, 1), (1, 3, 0, 2), (1, 2), 1),
    "unpadded 3x3": (16, 16, (5, 9), (3, 3), (1, 1), (0, 0, 0, 0), (2, 2), 1),
    "depthwise": (35, 35, (6, 7), (3, 3), (2, 2), (0, 1, 0, 1), (1, 1), 35),
    "depthwise, two outputs each": (18, 36, (5, 5), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 18),
    "groups of a block": (32, 64, (4, 5), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 2),
    "ragged groups": (15, 21, (4, 5), (3, 1), (1, 2), (1, 1, 0, 0), (1, 1), 3),
}


def layer(shape, source, fill=0, weights=(-127, 127)):
    """Return a random convolution, its input codes, their type and its constants."""
    channels, outputs, size, kernel, stride, padding, dilation, groups = SHAPES[shape]
    kind = TensorType((channels, *size), source[0], source[1], 1.0, source[2])
    out_size = pooled_size(size, kernel, stride, padding, dilation)
    low, high = kind.range
    x = torch.randint(low, high + 1, (2, *kind.shape), generator=generator(1), dtype=torch.int32)
    filters = (outputs, channels // groups, *kernel)
    weight = torch.randint(weights[0], weights[1] + 1, filters, generator=generator(2), dtype=torch.int8)
    bias = torch.randint(-999, 999, (outputs,), generator=generator(3), dtype=torch.int32)
    deviation = 70 * high * (channels // groups * kernel[0] * kernel[1]) ** 0.5
    constants = {"weight": weight, "bias": bias, **requantizing(outputs, 60 / deviation)}
    op = o.Conv2d(
        name="op", inputs=("x",), out=TensorType((outputs, *out_size), 8, True), lo=-128, hi=127, stride=stride,
        padding=padding, dilation=dilation, groups=groups, fill=fill,
    )  # fmt: skip
    return op, [x], [kind], constants


@pytest.mark.parametrize("source", [(8, False, 131), (4, True, 0), (16, True, 0)], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_convolutions_of_larger_shapes(backend, shape, source):
    check(backend, *layer(shape, source))


@pytest.mark.parametrize("source", [(8, False, 131), (4, False, 0), (8, True, 0)], ids=str)
@pytest.mark.parametrize("shape", [name for name, given in SHAPES.items() if given[-1] == 1])
def test_weights_of_four_bits(backend, shape, source, monkeypatch):
    monkeypatch.setattr(plans, "_pays_to_pack", lambda *_: True)
    check(backend, *layer(shape, source, weights=(-8, 7)))


@pytest.mark.parametrize(
    ("row", "weight", "packed"), [(64, 7, True), (64, 8, False), (75_000, 7, True), (75_200, 7, False)]
)
def test_weights_are_packed_where_their_sum_fits(row, weight, packed, monkeypatch):
    """16 * 255 * 7 * 75,193 leaves int32."""
    llvm = LlvmBackend()
    if not llvm.instruction.unpacks:
        pytest.skip(f"weights stay bytes for {llvm.instruction.name}")
    source, out = TensorType((row,), 8, False), TensorType((16,), 32, True)
    constants = {"weight": torch.full((16, row), weight, dtype=torch.int8), "bias": torch.zeros(16).int()}
    op = o.Linear(name="op", inputs=("x",), out=out, lo=out.range[0], hi=out.range[1])
    arrays = {name: tensor.numpy() for name, tensor in constants.items()}
    monkeypatch.setattr(plans, "_pays_to_pack", lambda *_: True)
    kernel = llvm.kernel(Site(op, (llvm.storage(source, image=False),), llvm.storage(out, image=False), arrays, 1))
    codes = 16 * row
    assert kernel.constants[0].nbytes == (codes // 2 if packed else codes)
    check(llvm, op, [torch.full((1, row), 255, dtype=torch.int32)], [source], constants)


@pytest.mark.parametrize("shape", [name for name, given in SHAPES.items() if any(given[5])])
@pytest.mark.parametrize(
    ("source", "fill"), [((8, False, 131), 124), ((8, True, 0), -128), ((2, True, 0), 1), ((16, True, 0), -32768)]
)
def test_padding_with_a_code(backend, shape, source, fill):
    check(backend, *layer(shape, source, fill))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shape", [name for name, given in SHAPES.items() if given[-1] == 1])
def test_tiles_over_the_end_read_inside_the_input(shape, signed):
    """Their sums are dropped, so no comparison of results would see a read beyond the buffer."""
    op, _, (kind,), constants = layer(shape, (8, signed, 0))
    llvm = LlvmBackend()
    arrays = {name: tensor.numpy() for name, tensor in constants.items()}
    site = Site(op, (llvm.storage(kind, image=False),), llvm.storage(op.out, image=False), arrays, 1)
    (conv,) = (tensor for tensor in define(site).outs[0].op.input_tensors if tensor.op.name == "conv")
    read, *indices = conv.op.body[0].source[0].a.value.args  # the sum is of int32(read[indices]) * int32(weight)
    analyzer = Analyzer()
    for axis in (*conv.op.axis, *conv.op.reduce_axis):
        analyzer.bind(axis.var, axis.dom)
    for index, extent in zip(indices, read.shape, strict=True):
        bound = analyzer.const_int_bound(index)
        assert 0 <= bound.min_value <= bound.max_value < int(extent)


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
