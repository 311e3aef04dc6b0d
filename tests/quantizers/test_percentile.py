"""Percentiles: HAWQ's definition, and what is left out of a range."""

import math

import pytest
import torch

from hawq.errors import UsageError
from hawq.quantizers import ActivationGrid, QuantOptions
from hawq.quantizers.percentile import PercentileActivation, PercentileWeight, percentile_bounds


def values(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("percent", [60, 99, 99.9, 100])
@pytest.mark.parametrize("count", [1, 7, 1000])
def test_bounds_are_the_kth_smallest_of_a_full_sort(percent, count):
    rows = values(3, count)
    ordered = rows.sort(dim=1).values
    below = max(1, math.ceil(count * (100 - percent) / 100))
    above = min(count, math.ceil(count * percent / 100))
    lower, upper = percentile_bounds(rows, percent)
    assert lower.equal(ordered[:, below - 1])
    assert upper.equal(ordered[:, above - 1])


def test_outliers_of_activations_are_clipped_and_the_share_beyond_is_right():
    value = values(8, 16, 64, 64)
    value[0, 0, 0, 0] = 1000.0
    quantizer = PercentileActivation(4, ActivationGrid.SYMMETRIC, QuantOptions(act_percentile=99.0))
    quantizer(value)
    beyond = (value > quantizer.high).float().mean()
    assert 0.007 < float(beyond) < 0.013  # of 65,536 values, 655 +- 26 lie beyond
    positive = PercentileActivation(4, ActivationGrid.UNSIGNED, QuantOptions(act_percentile=99.0))
    positive(value.relu())
    assert float(positive.low) == 0.0
    assert float(positive.high) < 3


def test_outliers_of_weights_are_clipped_channel_by_channel():
    weight = values(4, 1000)
    weight[2, 5] = -50.0
    quantizer = PercentileWeight(8, weight, QuantOptions(weight_percentile=99.5))
    limits = quantizer.scale(weight) * 127
    for row, limit in zip(weight, limits, strict=True):
        ordered = row.sort().values
        assert float(limit) == pytest.approx(float(max(-ordered[4], ordered[994])), rel=1e-6)


@pytest.mark.parametrize("percent", [50, 101, -1])
def test_impossible_percentiles_are_wrong_usage(percent):
    with pytest.raises(UsageError, match=r"allowed are numbers in \(50, 100\]"):
        QuantOptions(act_percentile=percent)
