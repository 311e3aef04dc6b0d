"""Every op's CUDA kernel, run on the CPU, gives the reference executor's integers, up to the edge of int32."""

import pytest
import torch
from convolution_cases import KINDS, SHAPES, layer
from hypothesis import HealthCheck, given, settings
from kernel_cases import check, kernel_case
from kernel_runner import requantizing
from strategies import CASES

from hawq.integer import TensorType, execute_op
from hawq.integer import ops as o
from hawq.integer.certificate import partial_sum_bound

EVERY_FAMILY = ("sm_75", "sm_80", "sm_90")
TENSOR_CORES = (o.Conv2d, o.Linear)


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
    cases = [kernel_case(case) for case in drawn(kind, 10)]
    check(cases, tmp_path, EVERY_FAMILY if kind in TENSOR_CORES else ["sm_80"])


@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_of_larger_shapes(kind, tmp_path):
    check([kernel_case(layer(shape, kind)) for shape in SHAPES], tmp_path, EVERY_FAMILY)


def test_padding_with_a_code(tmp_path):
    cases = []
    for kind, ((bits, signed, zero), *_) in KINDS.items():
        low, high = TensorType((1,), bits, signed).range
        cases += [kernel_case(layer("asymmetric", kind, code - zero)) for code in (low, high)]
    check(cases, tmp_path, EVERY_FAMILY)


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
    check([kernel_case(edge(given, accumulates)) for given in EDGES.values()], tmp_path, EVERY_FAMILY)


def test_a_sum_that_leaves_int32_within_the_tensor_cores_wraps_back(tmp_path):
    check([kernel_case(edge(LONG_ROW, accumulates=True))], tmp_path, ["sm_80"])


def test_requantization_of_extreme_accumulators(tmp_path):
    x = torch.tensor([-(2**31), 2**31 - 1, 0, 1, -1, 77, 2**30, -(2**30)], dtype=torch.int32).view(1, 4, 1, 2)
    out = TensorType((4, 1, 2), 8, False, 1.0, 3)
    op = o.Requantize(name="op", inputs=("x",), out=out, lo=0, hi=255)
    sources = [TensorType((4, 1, 2), 32, True, 1.0, zero) for zero in (0, 77, -(2**31))]
    cases = [kernel_case((op, [x], [source], requantizing(1, 2.0**-25))) for source in sources]
    check(cases, tmp_path, ["sm_80"])


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
        cases.append(kernel_case((op, [image], [], {})))
    check(cases, tmp_path, ["sm_80"])
