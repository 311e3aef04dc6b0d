"""Every op's CUDA kernel, run on the CPU, gives the reference executor's integers, up to the edge of int32."""

import pytest
import torch
from cuda_emulator import EmulatedKernels
from hypothesis import HealthCheck, given, settings
from kernel_runner import requantizing, store
from strategies import CASES

from hawq.integer import TensorType, execute_op
from hawq.integer import ops as o
from hawq.integer.certificate import partial_sum_bound
from hawq.integer.geometry import pooled_size
from tvm_export.cuda.backend import CudaBackend
from tvm_export.definitions import Site

EVERY_FAMILY = ("sm_75", "sm_80", "sm_90")
TENSOR_CORES = (o.Conv2d, o.Linear)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def site_of(op, inputs, types, constants):
    backend = CudaBackend(["sm_80"])
    sources = tuple(backend.storage(kind, image=False) for kind in types)
    out = backend.storage(op.out, image=not types)
    return Site(op, sources, out, {name: tensor.numpy() for name, tensor in constants.items()}, len(inputs[0]))


def check(cases, folder, architectures=EVERY_FAMILY):
    """Compare kernels with the reference, every integer; a case is (op, inputs, types, constants)."""
    kernels = EmulatedKernels([site_of(*case) for case in cases])
    for arch in architectures:
        emulator = kernels.on(arch, folder)
        for index, (case, site) in enumerate(zip(cases, kernels.sites, strict=True)):
            op, inputs, types, _ = case
            stored = [store(s, codes) for s, codes in zip(site.inputs, inputs, strict=True)] if types else None
            found = kernels.run(emulator, index, stored or [inputs[0].contiguous().numpy()])
            codes = site.out.unpack(torch.from_numpy(found.copy()))
            assert codes.equal(execute_op(*case)), (arch, op, types)


def drawn(kind, count):
    """Return what a strategy draws, so that one compilation serves all cases."""
    cases = []

    @settings(max_examples=count, deadline=None, database=None, derandomize=True, suppress_health_check=HealthCheck)
    @given(CASES[kind])
    def collect(case):
        cases.append(case)

    collect()
    return cases


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_kernel_equals_the_reference(kind, tmp_path):
    check(drawn(kind, 10), tmp_path, EVERY_FAMILY if kind in TENSOR_CORES else ["sm_80"])


# (input channels, output channels, (H, W), kernel, stride, padding, dilation)
SHAPES = {
    "image": (3, 33, (9, 14), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "several tiles of channels": (20, 150, (3, 5), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "several chunks": (160, 24, (3, 5), (3, 1), (1, 1), (1, 1, 0, 0), (1, 1)),
    "several of all": (96, 72, (9, 17), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "asymmetric": (17, 19, (7, 8), (5, 3), (2, 1), (1, 3, 0, 2), (1, 2)),
    "window beyond the map": (8, 8, (2, 2), (5, 5), (1, 1), (4, 4, 4, 4), (1, 1)),
}
# (bits, signed, zero point) of the input; most bits of the weights; (bits, signed) of the output
KINDS = {
    "u8 x s8 -> u8": ((8, False, 131), 8, (8, False)),
    "s8 x s8 -> s16": ((8, True, -7), 8, (16, True)),
    "u4 x s4 -> u4": ((4, False, 9), 4, (4, False)),
    "s4 x s4 -> s4": ((4, True, 3), 4, (4, True)),
    "u8 x s4 -> s8": ((8, False, 0), 4, (8, True)),
    "s8 x s3 -> u4": ((8, True, 0), 3, (4, False)),
    "u4 x s8 -> u8": ((4, False, 0), 8, (8, False)),
    "s4 x s8 -> sums": ((4, True, -8), 8, (32, True)),
    "u5 x s2 -> u3": ((5, False, 31), 2, (3, False)),
    "u2 x s6 -> s7": ((2, False, 1), 6, (7, True)),
}


def layer(shape, kind, fill=0):
    """Return a random convolution, its input codes, their type and its constants."""
    channels, outputs, size, kernel, stride, padding, dilation = SHAPES[shape]
    (bits, signed, zero), weight_bits, target = KINDS[kind]
    source = TensorType((channels, *size), bits, signed, 1.0, zero)
    low, high = source.range
    x = torch.randint(low, high + 1, (2, *source.shape), generator=generator(1), dtype=torch.int32)
    limit = 2 ** (weight_bits - 1) - 1
    weights = (outputs, channels, *kernel)
    weight = torch.randint(-limit, limit + 1, weights, generator=generator(2), dtype=torch.int8)
    constants = {"weight": weight, "bias": torch.randint(-99, 99, (outputs,), generator=generator(3)).int()}
    out = TensorType((outputs, *pooled_size(size, kernel, stride, padding, dilation)), *target)
    if out.bits < 32:
        spread = (high - low) / 3 * limit * weight[0].numel() ** 0.5
        constants |= requantizing(outputs, out.range[1] / spread)
    op = o.Conv2d(
        name="op", inputs=("x",), out=out, lo=out.range[0], hi=out.range[1], stride=stride, padding=padding,
        dilation=dilation, groups=1, fill=fill,
    )  # fmt: skip
    return op, [x], [source], constants


@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_of_larger_shapes(kind, tmp_path):
    check([layer(shape, kind) for shape in SHAPES], tmp_path)


def test_padding_with_a_code(tmp_path):
    cases = []
    for kind, ((bits, signed, zero), *_) in KINDS.items():
        low, high = TensorType((1,), bits, signed).range
        cases += [layer("asymmetric", kind, code - zero) for code in (low, high)]
    check(cases, tmp_path)


# Certified layers whose parts leave int32 without the zero point in the sum: (input, weight, bias, row, codes)
EDGES = {
    "bias near the limit": ((8, True, 0), 127, 2**31 - 1 - 128 * 127 * 64, 64, 127),
    "bias near the limit, zero point": ((8, False, 255), 127, -(2**31) + 255 * 127 * 64, 64, 0),
    "rows of few bits": ((4, False, 15), 7, -(2**31) + 15 * 7 * 999, 999, 0),
}
LONG_ROW = ((8, False, 255), -127, 0, 66_000, 255)


def edge(given, accumulates):
    kind, weight, bias, row, code = given
    source = TensorType((row,), kind[0], kind[1], 1.0, kind[2])
    constants = {"weight": torch.full((3, row), weight, dtype=torch.int8), "bias": torch.full((3,), bias).int()}
    lo, hi = partial_sum_bound(constants["weight"], constants["bias"], source)
    assert -(2**31) <= lo <= hi < 2**31  # the certificate lets the layer pass
    out = TensorType((3,), 32 if accumulates else 16, True)
    constants |= {} if accumulates else requantizing(3, 2.0**-16)
    op = o.Linear(name="op", inputs=("x",), out=out, lo=out.range[0], hi=out.range[1])
    return op, [torch.full((1, row), code, dtype=torch.int32)], [source], constants


@pytest.mark.parametrize("accumulates", [False, True], ids=["codes", "accumulators"])
def test_sums_at_the_edge_of_int32(accumulates, tmp_path):
    check([edge(given, accumulates) for given in EDGES.values()], tmp_path)


def test_a_sum_that_leaves_int32_within_the_tensor_cores_wraps_back(tmp_path):
    check([edge(LONG_ROW, accumulates=True)], tmp_path, ["sm_80"])


def test_requantization_of_extreme_accumulators(tmp_path):
    x = torch.tensor([-(2**31), 2**31 - 1, 0, 1, -1, 77, 2**30, -(2**30)], dtype=torch.int32).view(1, 4, 1, 2)
    out = TensorType((4, 1, 2), 8, False, 1.0, 3)
    op = o.Requantize(name="op", inputs=("x",), out=out, lo=0, hi=255)
    sources = [TensorType((4, 1, 2), 32, True, 1.0, zero) for zero in (0, 77, -(2**31))]
    check([(op, [x], [source], requantizing(1, 2.0**-25)) for source in sources], tmp_path, ["sm_80"])


def test_input_codes_next_to_ties(tmp_path):
    cases = []
    for scale in (0.1, 1 / 3, 0.00784313):
        scale = float(torch.tensor(scale))
        tie = ((torch.arange(-129, 128, dtype=torch.float64) + 0.5) * scale).float()
        below, above = (torch.nextafter(tie, torch.full_like(tie, limit)) for limit in (-1e9, 1e9))
        image = torch.stack([below, tie, above]).view(1, 3, 1, -1)
        out = TensorType(tuple(image.shape[1:]), 8, True, scale)
        op = o.QuantizeInput(name="op", inputs=(), out=out, lo=-128, hi=127)
        reciprocal = torch.round(image * (1 / torch.tensor(scale))).clamp(-128, 127).int()
        assert not torch.equal(execute_op(op, [image], [], {}), reciprocal)  # tells a division from a product
        cases.append((op, [image], [], {}))
    check(cases, tmp_path, ["sm_80"])
