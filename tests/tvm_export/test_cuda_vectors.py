"""Depthwise convolutions, pools and element-wise ops on CUDA, in vectors of channels, give the reference's integers."""

import pytest
import torch
from convolution_cases import KINDS, generator, site_of
from kernel_cases import behind, check, kernel_case
from kernel_runner import requantizing
from test_cuda_kernels import drawn

from hawq.integer import TensorType
from hawq.integer import ops as o
from hawq.integer.geometry import pooled_size
from tvm_export.cuda import chain, elementwise
from tvm_export.cuda.backend import CudaBackend
from tvm_export.cuda.depthwise import is_depthwise

# (channels, (H, W), kernel, stride, padding, dilation)
SHAPES = {
    "ragged": (20, (7, 9), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "strided": (33, (8, 7), (3, 3), (2, 2), (0, 1, 1, 0), (1, 1)),
    "dilated": (8, (9, 8), (3, 2), (1, 1), (2, 2, 1, 1), (2, 3)),
    "large window": (4, (5, 6), (5, 5), (1, 2), (2, 2, 2, 2), (1, 1)),
    "a single pixel": (64, (3, 3), (3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
}


def deep(shape, kind, fill):
    """Return a random depthwise convolution."""
    channels, size, kernel, stride, padding, dilation = SHAPES[shape]
    (bits, signed, zero), weight_bits, target = KINDS[kind]
    source = TensorType((channels, *size), bits, signed, 1.0, zero)
    low, high = source.range
    x = torch.randint(low, high + 1, (2, *source.shape), generator=generator(1), dtype=torch.int32)
    limit = 2 ** (weight_bits - 1) - 1
    weight = torch.randint(-limit, limit + 1, (channels, 1, *kernel), generator=generator(2), dtype=torch.int8)
    constants = {"weight": weight, "bias": torch.randint(-99, 99, (channels,), generator=generator(3)).int()}
    out = TensorType((channels, *pooled_size(size, kernel, stride, padding, dilation)), *target)
    if out.bits < 32:
        constants |= requantizing(channels, out.range[1] / ((high - low) * limit))
    op = o.Conv2d(
        name="op", inputs=("x",), out=out, lo=out.range[0], hi=out.range[1], stride=stride, padding=padding,
        dilation=dilation, groups=channels, fill=fill and min(fill, high - zero),
    )  # fmt: skip
    return op, [x], [source], constants


@pytest.mark.parametrize("fill", [0, 2])
def test_depthwise_convolutions(fill, tmp_path):
    cases = [deep(shape, kind, fill) for shape in SHAPES for kind in KINDS]
    assert all(is_depthwise(site_of(*case)) for case in cases)
    check([kernel_case(case, behind(case, index)) for index, case in enumerate(cases)], tmp_path, ["sm_80"])


@pytest.mark.parametrize("count", [4, 16])
def test_vectors_of_either_width(count, tmp_path, monkeypatch):
    """Large tensors take 16 channels a thread; here all do, or none does."""
    monkeypatch.setattr(elementwise, "_BUSY", 0 if count == 16 else 1 << 30)
    cases = [case for kind in (*chain._FUNCTIONS, *elementwise._POOLS) for case in drawn(kind, 12)]
    sites = [site_of(*case) for case in cases]
    assert all(elementwise.has_vectors(site) for site in sites)
    texts = [CudaBackend(["sm_80"]).kernel(site).function.script() for site in sites]
    assert all(f"kCodes = {count};" in text for text in texts)
    check([kernel_case(case, behind(case, index)) for index, case in enumerate(cases)], tmp_path, ["sm_80"])
