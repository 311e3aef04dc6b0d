"""Rounding, dyadic numbers and code ranges at their ends and ties."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hawq.errors import HawqError
from hawq.integer.arithmetic import (
    code_range,
    dyadic,
    dyadic_shared,
    fixed_positions,
    part_bits,
    quantize,
    requantize,
    rounding_shift,
)


@pytest.mark.parametrize(
    ("bits", "signed", "expected"),
    [(1, False, (0, 1)), (4, True, (-8, 7)), (8, False, (0, 255)), (16, True, (-32768, 32767))],
)
def test_code_range(bits, signed, expected):
    assert code_range(bits, signed) == expected


@given(st.floats(2.0**-31, 2.0**29), st.integers(0, 2))
def test_dyadic_is_the_nearest(value, nudge):
    for _ in range(nudge):
        value = math.nextafter(value, math.inf)
    m, s = (int(t) for t in dyadic(torch.tensor([value], dtype=torch.float64)))
    assert 1 << 30 <= m < 1 << 31
    assert 1 <= s <= 62
    error = abs(Fraction(value) - Fraction(m, 1 << s))
    assert all(error <= abs(Fraction(value) - Fraction(other, 1 << s)) for other in (m - 1, m + 1))


def test_dyadic_carries_into_the_exponent():
    m, s = dyadic(torch.tensor([1 - 2.0**-40], dtype=torch.float64))
    assert (int(m), int(s)) == (1 << 30, 30)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 2.0**31, 2.0**-34])
def test_dyadic_refuses_what_it_cannot_hold(value):
    with pytest.raises(HawqError, match="cannot be written"):
        dyadic(torch.tensor([1.0, value], dtype=torch.float64))


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_shared_shift_keeps_both_ratios(a, b):
    m, s = dyadic_shared(torch.tensor([a, b], dtype=torch.float64))
    assert int(m.max()) >= 1 << 30
    for ratio, multiplier in zip((a, b), m.tolist(), strict=True):
        assert abs(Fraction(ratio) * (1 << int(s)) - multiplier) <= Fraction(1, 2) or multiplier == (1 << 31) - 1


@given(st.integers(-(2**61), 2**61), st.integers(1, 61))
def test_rounding_shift_rounds_halves_up(value, shift):
    expected = math.floor(Fraction(value, 1 << shift) + Fraction(1, 2))
    assert int(rounding_shift(torch.tensor(value), shift)) == expected


def test_requantize_reaches_the_ends_without_overflow():
    acc = torch.tensor([-(2**31), -1, 0, 1, 2**31 - 1])
    m, s = torch.tensor((1 << 31) - 1), torch.tensor(62)
    assert requantize(acc, m, s, 0, -128, 127).tolist() == [-1, 0, 0, 0, 1]
    assert requantize(acc, m, torch.tensor(1), 3, 0, 255).tolist() == [0, 0, 3, 255, 255]


def test_quantize_sends_ties_to_even_and_clamps():
    values = torch.tensor([-0.5, 0.5, 1.5, 2.5, 1e9, -1e9])
    assert quantize(values, 1.0, 0, -8, 7).tolist() == [0, 0, 2, 2, 7, -8]
    assert quantize(values, 1.0, 3, 0, 15).tolist() == [3, 3, 5, 5, 15, 0]


def test_positions_between_rows_are_the_nearest_parts():
    whole, part = fixed_positions(torch.tensor([0.0, 1.25, 2.99, 3.0625, 4.03125], dtype=torch.float64), 4)
    assert whole.tolist() == [0, 1, 2, 3, 4]
    assert part.tolist() == [0, 4, 16, 1, 0]  # 0.03125 is half a sixteenth: ties go to even


@pytest.mark.parametrize("bits", range(1, 17))
def test_interpolated_sums_stay_below_two_to_the_30(bits):
    assert (2**bits - 1) * 4 ** part_bits(bits) < 2**30
