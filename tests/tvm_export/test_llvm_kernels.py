"""Every op's CPU kernel gives the reference executor's integers, with VNNI and without."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_runner import BACKENDS, check, requantizing
from strategies import CASES

from hawq.integer import TensorType, execute_op
from hawq.integer import ops as o


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return BACKENDS[request.param]()


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
@settings(max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_kernel_equals_the_reference(backend, kind, data):
    check(backend, *data.draw(CASES[kind]))


@pytest.mark.parametrize("zero_point", [0, 77, -(2**31)])
def test_requantization_of_extreme_accumulators(backend, zero_point):
    source = TensorType((4, 1, 2), 32, True, 1.0, zero_point)
    out = TensorType((4, 1, 2), 8, False, 1.0, 3)
    x = torch.tensor([-(2**31), 2**31 - 1, 0, 1, -1, 77, 2**30, -(2**30)], dtype=torch.int32).view(1, 4, 1, 2)
    op = o.Requantize(name="op", inputs=("x",), out=out, lo=0, hi=255)
    check(backend, op, [x], [source], requantizing(1, 2.0**-25))


@pytest.mark.parametrize("zero_point", [0, 30_000])
@pytest.mark.parametrize("shift", [1, 15, 16, 17, 30, 31, 32, 33, 34, 61, 62])
def test_every_shift_of_a_stream(backend, shift, zero_point):
    """Shifts above 32 take another way than those below."""
    stream = TensorType((4, 2, 2), 16, True, 1.0, zero_point)
    out = TensorType((4, 2, 2), 16, True, 1.0, -3)
    lo, hi = stream.range
    a, b = (
        torch.tensor([lo, hi, 0, 1, -1, first, 77, -78] * 2, dtype=torch.int32).view(1, 4, 2, 2) for first in (lo, hi)
    )
    m = torch.tensor([2**31 - 1, 2**30 + 1], dtype=torch.int32)
    constants = {"multiplier": m, "shift": torch.tensor([shift], dtype=torch.int32)}
    add = o.Add(name="op", inputs=("a", "b"), out=out, lo=lo, hi=hi)
    check(backend, add, [a, b], [stream, stream], constants)
    alone = o.Requantize(name="op", inputs=("a",), out=out, lo=lo, hi=hi)
    check(backend, alone, [a], [stream], {**constants, "multiplier": m[:1]})


@pytest.mark.parametrize("channels", [(16, 48, 32), (32, 5), (3, 16, 20, 9), (1, 16), (40, 16)], ids=str)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (8, True), (16, True)])
def test_joined_channels(backend, channels, bits, signed):
    """Vectors of channels lie in one input, or begin in one and end in another."""
    types = [TensorType((count, 3, 5), bits, signed) for count in channels]
    low, high = types[0].range
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randint(low, high + 1, (2, *kind.shape), generator=generator).int() for kind in types]
    out = TensorType((sum(channels), 3, 5), bits, signed)
    op = o.Concat(name="op", inputs=tuple(f"x{i}" for i in range(len(types))), out=out)
    check(backend, op, inputs, types, {})


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
