"""Every instruction of the CPUs in use is chosen, compiled to, and exact where others would saturate."""

import re

import pytest
import torch
import tvm
from kernel_runner import CPUS, backend_for, check, requantizing, site_of

from hawq.integer import TensorType
from hawq.integer import ops as o
from hawq.integer.geometry import pooled_size
from tvm_export.instructions import INSTRUCTIONS, PORTABLE, best_instruction
from tvm_export.llvm import LlvmBackend

# (input channels, output channels, (H, W), kernel, stride, padding, dilation)
LAYERS = {
    "image": (3, 33, (9, 14), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "several blocks": (20, 70, (3, 28), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "channels that fill no vector": (21, 40, (2, 37), (1, 3), (1, 1), (0, 0, 1, 1), (1, 1)),
    "plain 1x1": (64, 128, (4, 7), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "strided 1x1": (24, 48, (8, 14), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    "asymmetric": (17, 19, (7, 8), (5, 3), (2, 1), (1, 3, 0, 2), (1, 2)),
}
KINDS = {
    "u8, zero point": TensorType((1,), 8, False, 1.0, 131),
    "u8": TensorType((1,), 8, False),
    "s8": TensorType((1,), 8, True),
    "u4": TensorType((1,), 4, False),
    "s4, zero point": TensorType((1,), 4, True, 1.0, -3),
}
_VECTORS = {16: "zmm", 8: "ymm", 4: "xmm"}


@pytest.fixture(scope="module", params=CPUS)
def backend(request):
    return backend_for(request.param)


def convolution(name, kind, weights=(-127, 127), fill=0):
    """Return a random convolution, its input codes, their type and its constants."""
    channels, outputs, size, kernel, stride, padding, dilation = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    source = TensorType((channels, *size), kind.bits, kind.signed, 1.0, kind.zero_point)
    low, high = source.range
    x = torch.randint(low, high + 1, (2, *source.shape), generator=generator, dtype=torch.int32)
    filters = (outputs, channels, *kernel)
    weight = torch.randint(weights[0], weights[1] + 1, filters, generator=generator, dtype=torch.int8)
    bias = torch.randint(-999, 999, (outputs,), generator=generator, dtype=torch.int32)
    deviation = 0.6 * weights[1] * high * weight[0].numel() ** 0.5
    out = TensorType((outputs, *pooled_size(size, kernel, stride, padding, dilation)), 8, True)
    op = o.Conv2d(
        name="op", inputs=("x",), out=out, lo=-128, hi=127, stride=stride, padding=padding, dilation=dilation,
        groups=1, fill=fill,
    )  # fmt: skip
    return op, [x], [source], {"weight": weight, "bias": bias, **requantizing(outputs, 60 / deviation)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_convolutions_are_exact(backend, name, kind):
    check(backend, *convolution(name, KINDS[kind], weights=(-8, 7) if KINDS[kind].bits == 4 else (-127, 127)))


@pytest.mark.parametrize(("kind", "fill"), [("u8, zero point", 124), ("s8", -128), ("s4, zero point", 1)])
def test_padding_with_a_code(backend, kind, fill):
    check(backend, *convolution("asymmetric", KINDS[kind], fill=fill))


@pytest.mark.parametrize("kind", [TensorType((64,), 8, False), TensorType((64,), 8, False, 1.0, 255)], ids=str)
def test_extreme_codes_next_to_each_other(backend, kind):
    """A sum of two products in 16 bits would saturate: 2 * 255 * 127 and 2 * 255 * -128 are beyond them."""
    rows = torch.tensor([[127, 127], [-128, -128], [-127, -127], [127, -128], [-128, 127]], dtype=torch.int8)
    constants = {"weight": rows.repeat(1, 32), "bias": torch.zeros(5).int()}
    op = o.Linear(name="op", inputs=("x",), out=TensorType((5,), 32, True), lo=-(2**31), hi=2**31 - 1)
    x = torch.tensor([[255, 255], [0, 0], [255, 0]], dtype=torch.int32).repeat(1, 32)
    check(backend, op, [x], [kind], constants)


@pytest.mark.parametrize("code", [-128, 127])
def test_extreme_signed_codes(backend, code):
    source = TensorType((64,), 8, True)
    constants = {"weight": torch.tensor([[-128], [127]]).repeat(1, 64).to(torch.int8), "bias": torch.zeros(2).int()}
    op = o.Linear(name="op", inputs=("x",), out=TensorType((2,), 32, True), lo=-(2**31), hi=2**31 - 1)
    check(backend, op, [torch.full((1, 64), code, dtype=torch.int32)], [source], constants)


@pytest.mark.parametrize(("instruction", "cpu"), list(zip(INSTRUCTIONS, CPUS, strict=True)), ids=CPUS)
def test_the_cpu_decides_which_is_compiled(instruction, cpu):
    backend = LlvmBackend(cpu)
    assert backend.instruction == instruction
    op, _, types, constants = convolution("several blocks", KINDS["u8"])
    kernel = backend.kernel(site_of(backend, op, types, constants)).function.with_attr("global_symbol", "kernel")
    code = str(tvm.tirx.build(tvm.IRModule({"kernel": kernel}), backend.target).inspect_source("asm"))
    wanted = instruction.name.partition(",")[0]
    if instruction.intrinsic:
        assert re.search(rf"\b{wanted}\s.*%{_VECTORS[instruction.lanes]}", code)
    assert ("pdpbusd" in code) == (wanted == "vpdpbusd")
    assert "pmaddubsw" not in code  # it saturates at 16 bits


def test_a_cpu_without_extensions_is_served():
    assert best_instruction(lambda _: False) == PORTABLE
    assert all(found.feature for found in INSTRUCTIONS if found != PORTABLE)
