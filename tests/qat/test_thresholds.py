"""Thresholds on integers give the code of the real value, for every integer."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hawq.errors import HawqError
from hawq.graph import ir
from hawq.integer.ops import TensorType
from hawq.qat.thresholds import accumulator_thresholds, code_thresholds
from hawq.quantizers.threshold import Levels, reached

NO_BIAS = torch.zeros(2, dtype=torch.float64)
NUMBERS = st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False)


def levels_of(thresholds, codes=None, scale=1.0):
    values = torch.tensor(sorted(thresholds), dtype=torch.float64)
    return Levels(values, torch.arange(len(thresholds) + 1) if codes is None else torch.tensor(codes), scale)


def code_of(levels, value):
    """Compare a rational number with thresholds, exactly."""
    return int(levels.codes[sum(value >= Fraction(t) for t in levels.thresholds.tolist())])


def clamped(value, clamp):
    if clamp is not None and clamp.lo is not None:
        value = max(value, Fraction(clamp.lo))
    if clamp is not None and clamp.hi is not None:
        value = min(value, Fraction(clamp.hi))
    return value


def found_code(constants, channel, number):
    row = constants["threshold"][channel if len(constants["threshold"]) > 1 else 0]
    return int(constants["level"][sum(number >= t for t in row.tolist())])


def nearby(constants, channel):
    """Return the integers next to every threshold, where a wrong one would show, and some others."""
    near = [t + d for t in constants["threshold"][channel].tolist() for d in (-2, -1, 0, 1, 2)]
    limits = range(-(2**31) + 1, 2**31 - 1)  # what an accumulator can hold
    return [n for n in (*near, -(2**30), -77, -1, 0, 1, 5, 2**30) if n in limits]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_code_of_every_accumulator_is_that_of_its_real_value(data):
    """Batch norm is in scale and bias: a channel's real value is scale * accumulator + bias."""
    input_scale, weight_scale = (data.draw(st.floats(2.0**-20, 4.0, width=32)) for _ in range(2))
    scale = torch.tensor([input_scale * weight_scale, 0.1], dtype=torch.float64)
    multiples = st.integers(-(2**20), 2**20).map(lambda n: n * float(scale[0]))  # thresholds that integers may equal
    levels = levels_of(data.draw(st.lists(st.one_of(NUMBERS, multiples), min_size=1, max_size=6)))
    ends = data.draw(st.tuples(NUMBERS, st.one_of(NUMBERS, st.sampled_from(levels.thresholds.tolist()))))
    clamp = data.draw(st.sampled_from([None, ir.Clamp(0.0, None), ir.Clamp(0.0, 6.0), ir.Clamp(*sorted(ends))]))
    bias = torch.tensor([0.0, data.draw(st.integers(-(2**20), 2**20)) / 2.0**12], dtype=torch.float64)
    constants = accumulator_thresholds(levels, scale, bias, clamp)
    for channel in range(2):
        for number in nearby(constants, channel):
            real = clamped(number * Fraction(float(scale[channel])) + Fraction(float(bias[channel])), clamp)
            assert found_code(constants, channel, number) == code_of(levels, real), (channel, number)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_code_of_every_stream_code_is_that_of_its_real_value(data):
    scale, zero_point = data.draw(st.floats(2.0**-20, 4.0, width=32)), data.draw(st.sampled_from([0, 3, -70]))
    source = TensorType((1,), 16, True, scale, zero_point)
    multiples = st.integers(-(2**15), 2**15).map(lambda n: n * scale)
    levels = levels_of(data.draw(st.lists(st.one_of(NUMBERS, multiples), min_size=1, max_size=6)))
    constants = code_thresholds(levels, source)
    for number in nearby(constants, 0):
        assert found_code(constants, 0, number) == code_of(levels, Fraction(scale) * (number - zero_point)), number


def test_a_quotient_that_rounds_to_an_integer_is_not_taken_for_one():
    scale, threshold = 0.00019895791461314524, 16.891924866485258
    assert threshold / scale == 84902.0
    assert Fraction(threshold) > 84902 * Fraction(scale)
    constants = accumulator_thresholds(
        levels_of([threshold]), torch.tensor([scale], dtype=torch.float64), NO_BIAS[:1], None
    )
    assert constants["threshold"].tolist() == [[84903]]


def test_thresholds_beyond_the_accumulator_are_always_or_never_reached():
    levels = levels_of([-1e30, 0.0, 1e30])
    constants = accumulator_thresholds(levels, torch.tensor([1e-3, 1e-3], dtype=torch.float64), NO_BIAS, None)
    assert constants["threshold"].tolist() == [[-(2**31), 0, 2**31 - 1]] * 2


def test_a_relu_reaches_what_lies_at_its_limits():
    levels = levels_of([-1.0, 0.0, 6.0, 6.5])
    scale = torch.tensor([0.5, 0.5], dtype=torch.float64)
    constants = accumulator_thresholds(levels, scale, torch.tensor([0.0, 2.0]).double(), ir.Clamp(0.0, 6.0))
    assert constants["threshold"][0].tolist() == [-(2**31), -(2**31), 12, 2**31 - 1]
    assert constants["threshold"][1].tolist() == [-(2**31), -(2**31), 8, 2**31 - 1]  # the bias is worth 4


@pytest.mark.parametrize(
    ("codes", "bits", "signed"),
    [([0, 1], 1, False), ([-1, 0], 1, True), ([-1, 1], 2, True), ([0, 1, 2], 2, False), ([-2, -1, 0, 1], 2, True),
     ([0, 85, 170, 255], 8, False), ([-127, -42, 42, 127], 8, True)],
)  # fmt: skip
def test_a_type_is_as_wide_as_its_codes(codes, bits, signed):
    levels = levels_of(range(len(codes) - 1), codes)
    assert (levels.bits, levels.signed) == (bits, signed)


@pytest.mark.parametrize(
    ("thresholds", "codes"),
    [([0.0, float("nan")], [0, 1, 2]), ([1.0, 0.0], [0, 1, 2]), ([0.0, 1.0], [0, 1, 1]), ([0.0], [0, 1, 2]),
     ([0.0], [0, 256]), ([0.0], [-1, 128])],
)  # fmt: skip
def test_levels_that_are_no_monotone_quantizer_are_refused(thresholds, codes):
    with pytest.raises(HawqError, match="must be finite and rise, codes within 8 bits"):
        Levels(torch.tensor(thresholds, dtype=torch.float64), torch.tensor(codes), 1.0)


def test_a_value_that_equals_a_threshold_has_reached_it():
    levels = levels_of([-0.5, 0.5], [-1, 0, 1])
    assert [levels.code_of(v) for v in (-0.6, -0.5, 0.0, 0.49, 0.5, 9.0)] == [-1, 0, 0, 0, 1, 1]
    value = torch.tensor([-0.6, -0.5, 0.0, 0.49, 0.5, 9.0])
    assert reached(value, torch.tensor([-0.5, 0.5])).tolist() == [0.0, 1.0, 1.0, 1.0, 2.0, 2.0]


def test_channels_have_thresholds_of_their_own():
    value = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    thresholds = torch.tensor([[[0.0, 0.5]], [[2.0, 3.0]]])  # (O, 1, L - 1)
    assert reached(value, thresholds).tolist() == [[1.0, 2.0], [0.0, 0.0]]
