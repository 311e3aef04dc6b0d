"""Entropy calibration: the threshold diverges least, by the definition in plain numpy."""

import numpy as np
import pytest
import torch

from hawq.quantizers import ActivationGrid, QuantOptions, activation_quantizer
from hawq.quantizers.kl import kl_threshold


def divergence(histogram, reach, levels):
    """Return KL(P || Q) of one threshold, bin by bin."""
    half = len(histogram) // 2
    inside = list(histogram[half - reach : half + reach + 1])
    p = list(inside)
    p[0] += sum(histogram[: half - reach])
    p[-1] += sum(histogram[half + reach + 1 :])
    parts = [[i for i in range(len(p)) if i * levels // len(p) == part] for part in range(levels)]
    q = [0.0] * len(p)
    for part in parts:
        filled = [i for i in part if p[i] > 0]
        for i in filled:
            q[i] = sum(inside[j] for j in part) / len(filled)
    q = [max(mass, 1e-4) if filled else 0 for mass, filled in zip(q, p, strict=True)]
    q = [mass / sum(inside) for mass in q]
    return sum(a / sum(p) * np.log(a / sum(p) / b) for a, b in zip(p, q, strict=True) if a)


@pytest.mark.parametrize("levels", [3, 7, 15, 31])
@pytest.mark.parametrize("count", [300, 30_000])
def test_the_threshold_diverges_least(levels, count):
    value = np.random.default_rng(levels).laplace(size=count) + 0.5
    histogram = np.histogram(value, 101, (-abs(value).max(), abs(value).max()))[0].astype(float)
    wanted = min(range(levels // 2, 51), key=lambda reach: divergence(histogram, reach, levels))
    assert kl_threshold(torch.from_numpy(histogram), levels) == wanted


def calibrated(grid, bits, *batches):
    quantizer = activation_quantizer("kl")(bits, grid, QuantOptions())
    quantizer.calibrating = True
    for batch in batches:
        quantizer(batch)
    return quantizer


@pytest.mark.parametrize("grid", ActivationGrid)
def test_a_far_outlier_is_cut_off(grid):
    value = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    value[0] = 40.0
    value = value.relu() if grid is ActivationGrid.UNSIGNED else value
    assert 1 < float(calibrated(grid, 4, value).high) < 8


def test_a_mirrored_tensor_has_one_bit_less():
    value = torch.from_numpy(np.random.default_rng(0).laplace(size=30_000).astype(np.float32))
    signs = torch.cat([value.abs(), -value.abs()])
    one, two = calibrated(ActivationGrid.UNSIGNED, 3, value.abs()), calibrated(ActivationGrid.SYMMETRIC, 4, signs)
    assert float(one.high) == float(two.high)


def test_of_several_batches_the_widest_counts():
    batches = [torch.randn(5_000, generator=torch.Generator().manual_seed(s)) * (s + 1) for s in range(3)]
    alone = [float(calibrated(ActivationGrid.SYMMETRIC, 4, batch).high) for batch in batches]
    assert float(calibrated(ActivationGrid.SYMMETRIC, 4, *batches).high) == max(alone)


@pytest.mark.parametrize("grid", ActivationGrid)
def test_a_dead_tensor_has_a_range(grid):
    quantizer = calibrated(grid, 4, torch.zeros(10))
    assert float(quantizer.step()) > 0
