"""Fake quantization: the program's codes in every memory layout and type, and the straight-through gradient."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hawq.integer.arithmetic import code_range, nearest_code
from hawq.quantizers.fake import _PIECE, fake_quantize

LAYOUTS = {
    "contiguous": lambda value: value,
    "channels last": lambda value: value.contiguous(memory_format=torch.channels_last),
    "an offset": lambda value: value[1:],
    "transposed": lambda value: value.transpose(1, 2),
    "gaps": lambda value: value[:, :, ::2],
    "repeated": lambda value: value[:1].expand(3, -1, -1, -1),
    "one value": lambda value: value[:1, :1, :1, :1],
    "empty": lambda value: value[:0],
}


def spread(shape, scale, seed):
    """Return values in and far outside the range of the codes, half of them within a rounding of a tie."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(shape, generator=generator) * 10.0 ** torch.randint(0, 7, shape, generator=generator)
    ties = torch.rand(shape, generator=generator) < 0.5
    return torch.where(ties, torch.round(steps) + 0.5, steps) * scale


@settings(deadline=None)
@given(
    st.sampled_from([2, 4, 8, 16]),
    st.booleans(),
    st.floats(2.0**-20, 2.0**10, width=32),
    st.floats(0, 1),
    st.sampled_from(list(LAYOUTS)),
    st.integers(0, 2**16),
)
def test_the_values_are_those_of_the_codes(bits, signed, scale, offset, layout, seed):
    lo, hi = code_range(bits, signed)
    zero_point = 0 if signed else round(offset * hi)
    value = LAYOUTS[layout](spread((3, 4, 5, 6), scale, seed))
    found = fake_quantize(value, torch.tensor(scale), zero_point, lo, hi)
    codes = nearest_code(value, torch.tensor(scale), zero_point, lo, hi)
    assert found.equal((codes - zero_point) * torch.tensor(scale))
    step = np.float32(scale)
    expected = (np.clip(np.rint(value.numpy() / step) + zero_point, lo, hi) - zero_point).astype(np.float32) * step
    assert (found.numpy() == expected).all()


@pytest.mark.parametrize("size", [_PIECE - 1, _PIECE, _PIECE + 1, 3 * _PIECE + 5])
def test_pieces_leave_nothing_out(size):
    value = spread((size,), 0.1, seed=size)
    expected = nearest_code(value, torch.tensor(0.1), 0, -128, 127) * torch.tensor(0.1)
    assert fake_quantize(value, torch.tensor(0.1), 0, -128, 127).equal(expected)


@pytest.mark.parametrize("shape", [(5, 3, 2, 2), (5, 7), (1, 3, 2, 2), (5, 1, 1, 1)])
def test_one_scale_per_channel(shape):
    value, scale = spread(shape, 0.1, seed=0), torch.rand(shape[0], *(1,) * (len(shape) - 1)) + 0.01
    found = fake_quantize(value, scale, 0, -7, 7)
    for channel in range(shape[0]):
        assert found[channel].equal(fake_quantize(value[channel], scale[channel].reshape(()), 0, -7, 7))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_before_it_is_divided(kind):
    value = spread((1000,), 0.1, seed=0).to(kind).requires_grad_()
    found = fake_quantize(value, torch.tensor(0.1), 3, 0, 255)
    assert found.dtype == torch.float32
    assert found.equal(fake_quantize(value.detach().float(), torch.tensor(0.1), 3, 0, 255))
    found.sum().backward()
    assert value.grad.dtype == kind
    assert value.grad.equal(torch.ones_like(value))


def test_autocast_changes_nothing():
    value = spread((1000,), 0.1, seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        found = fake_quantize(value, torch.tensor(0.1), 0, -128, 127)
    assert found.equal(fake_quantize(value, torch.tensor(0.1), 0, -128, 127))


def test_nan_stays_and_infinity_is_clamped():
    value = torch.tensor([float("nan"), float("inf"), -float("inf")])
    found = fake_quantize(value, torch.tensor(0.5), 2, 0, 15)
    assert bool(found[0].isnan())
    assert found[1:].tolist() == [6.5, -1.0]


def test_the_gradient_passes_rounding_and_clipping_and_nothing_is_kept_for_it():
    kept = []
    value = torch.tensor([-3.0, 0.26, 0.5, 9.0], requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        out = fake_quantize(value, torch.tensor(0.5), 0, 0, 15)
    assert not kept
    assert out.tolist() == [0.0, 0.5, 0.5, 7.5]
    out.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert value.grad.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_the_input_is_left_alone():
    value = spread((100,), 0.1, seed=0)
    before = value.clone()
    fake_quantize(value, torch.tensor(0.1), 0, -128, 127)
    assert value.equal(before)
