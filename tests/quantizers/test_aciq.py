"""ACIQ: the clips of the published table, their definition as least errors, and ranges that quantizers make of them."""

import numpy as np
import pytest
import torch

from hawq.quantizers import ActivationGrid, QuantOptions, activation_quantizer, weight_quantizer
from hawq.quantizers.density import Density
from hawq.quantizers.fake import fake_quantize

CLIPS = {
    Density.LAPLACE: (
        1.04991, 1.86282, 2.83068, 3.89723, 5.02864, 6.20477, 7.41313, 8.64562, 9.89676, 11.16269,
    ),
    Density.GAUSS: (0.76578, 1.23991, 1.71064, 2.15159, 2.55914, 2.93620, 3.28691, 3.61511, 3.92404, 4.21633),
}  # fmt: skip
"""In spreads, of 0 to 9 bits; arXiv 1810.05723 rounds them to two digits."""

NAMES = ("laplace", "gauss", "std", "mix")


def drawn(density, count=40_000, seed=0):
    source = np.random.default_rng(seed)
    draw = source.laplace if density is Density.LAPLACE else source.normal
    return torch.from_numpy(draw(size=count).astype(np.float32))


def calibrated(name, grid, bits, *batches, **options):
    quantizer = activation_quantizer(name)(bits, grid, QuantOptions(**options))
    quantizer.calibrating = True
    for batch in batches:
        quantizer(batch)
    quantizer.calibrating = False
    return quantizer.eval()


def squared_error(quantized, value):
    return float((quantized.double() - value).pow(2).mean())


@pytest.mark.parametrize("density", Density)
@pytest.mark.parametrize("bits", range(10))
def test_the_table_is_computed(density, bits):
    assert density.clip(2**bits) == pytest.approx(CLIPS[density][bits], abs=0.5e-5)


@pytest.mark.parametrize("density", Density)
@pytest.mark.parametrize("bins", [1, 3, 4, 11.3, 256])
def test_no_other_clip_has_a_smaller_expected_error(density, bins):
    found = density.clip(bins)
    least = density.error(found, bins)
    assert all(density.error(found * factor, bins) > least for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2))


@pytest.mark.parametrize("density", Density)
@pytest.mark.parametrize("clip", [1.0, 2.5, 4.0])
def test_the_expected_error_of_clipping_is_that_of_a_million_values(density, clip):
    value = drawn(density, 1_000_000).double()
    value = value / density.spread(value[None])[0]
    # 10%: of a million normal values 60 lie beyond 4 spreads
    assert squared_error(value.clamp(-clip, clip), value) == pytest.approx(density.error(clip, 1e9), rel=0.1)
    assert density.error(clip, 8) - density.error(clip, 1e9) == pytest.approx((2 * clip / 8) ** 2 / 12)


@pytest.mark.parametrize("density", Density)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_bins_of_a_range_are_its_codes(density, bits):
    value = drawn(density)
    spread, mean = float(density.spread(value[None])[0]), float(value.mean())
    two = calibrated(density.value, ActivationGrid.AFFINE, bits, value)
    assert float(two.high) == pytest.approx(min(mean + CLIPS[density][bits] * spread, float(value.max())), rel=1e-5)
    assert float(two.low) == pytest.approx(max(mean - CLIPS[density][bits] * spread, float(value.min())), rel=1e-5)
    symmetric = calibrated(density.value, ActivationGrid.SYMMETRIC, bits, value)
    wanted = mean + density.clip(2**bits - 1) * spread  # the code -2^(b-1) has no counterpart
    assert float(symmetric.high) == pytest.approx(min(wanted, float(value.max())), rel=1e-5)


@pytest.mark.parametrize("density", Density)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_behind_a_relu_the_share_of_zeros_does_not_matter(density, bits):
    """One side's b bits, with the code of zero, are 2^(b+1) - 1 codes of two sides, whose density its values show."""
    value = drawn(density)
    two = value.abs().repeat(2) * torch.tensor([1.0, -1.0]).repeat_interleave(len(value))
    rows = density.spread(two[None])[0] * density.clip(2 ** (bits + 1) - 1)
    for zeros in (0, 10_000, 100_000):
        one = calibrated(density.value, ActivationGrid.UNSIGNED, bits, torch.cat([value.abs(), torch.zeros(zeros)]))
        assert float(one.high) == pytest.approx(float(rows), rel=1e-5)


@pytest.mark.parametrize("density", Density)
@pytest.mark.parametrize("bits", [3, 4])
def test_values_of_the_density_err_least_under_its_rule(density, bits):
    value, grid = drawn(density).relu(), ActivationGrid.UNSIGNED
    rules = [member.value for member in Density] + ["minmax"]
    errors = {name: squared_error(calibrated(name, grid, bits, value)(value), value) for name in rules}
    assert min(errors, key=errors.get) == density.value
    limits = [float(value.max()) * k / 50 for k in range(1, 51)]
    ranges = [grid.place(torch.tensor(-limit), torch.tensor(limit), bits) for limit in limits]
    best = min(squared_error(fake_quantize(value, *found, *grid.codes(bits)), value) for found in ranges)
    assert errors[density.value] < 1.02 * best  # the formula's noise is uniform, in clipped values as well
    # of a sample `mix` sees 65,000 values: where two rules are close, it may take the other one
    assert squared_error(calibrated("mix", grid, bits, value)(value), value) < 1.02 * errors[density.value]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", ActivationGrid)
def test_a_dead_tensor_has_a_range(name, grid):
    assert float(calibrated(name, grid, 4, torch.zeros(10)).step()) > 0


def test_k_standard_deviations():
    value = drawn(Density.GAUSS) + 0.25
    quantizer = calibrated("std", ActivationGrid.AFFINE, 4, value, clip_stds=1.5)
    assert float(quantizer.high) == pytest.approx(float(value.mean() + 1.5 * value.std()), rel=1e-5)
    assert float(quantizer.low) == pytest.approx(float(value.mean() - 1.5 * value.std()), rel=1e-5)


@pytest.mark.parametrize("name", [*NAMES, "running"])
def test_a_calibration_takes_the_mean_over_its_batches(name):
    batches = [drawn(Density.GAUSS, 5_000, seed) * (seed + 1) for seed in range(3)]
    alone = [calibrated(name, ActivationGrid.AFFINE, 4, batch) for batch in batches]
    together = calibrated(name, ActivationGrid.AFFINE, 4, *batches)
    assert float(together.high) == pytest.approx(sum(float(q.high) for q in alone) / 3, rel=1e-6)
    assert float(together.low) == pytest.approx(sum(float(q.low) for q in alone) / 3, rel=1e-6)


@pytest.mark.parametrize("density", Density)
def test_rows_of_weights_are_clipped_one_by_one(density):
    weight = drawn(density, 4 * 5_000).reshape(4, 5_000) * torch.tensor([1.0, 0.1, 3.0, 0.0])[:, None] + 0.1
    quantizer = weight_quantizer(density.value)(3, weight, QuantOptions())
    wanted = weight.mean(1) + density.clip(7) * density.spread(weight)
    assert torch.allclose(quantizer.scale(weight) * 3, wanted, rtol=1e-5)
    codes, scale = quantizer.codes(weight)
    assert int(codes.abs().max()) == 3
    assert quantizer(weight).equal(codes * scale[:, None])


@pytest.mark.parametrize("bits", [2, 4])
def test_mixed_rows_err_as_little_as_the_best_rule(bits):
    weight = torch.stack([drawn(Density.LAPLACE, 2_000), drawn(Density.GAUSS, 2_000), torch.rand(2_000) - 0.5])
    rows = {
        name: (weight_quantizer(name)(bits, weight, QuantOptions())(weight) - weight).pow(2).sum(1)
        for name in ("laplace", "gauss", "minmax", "mix")
    }
    assert rows["mix"].equal(torch.stack([rows[n] for n in ("laplace", "gauss", "minmax")]).amin(0))


def test_a_row_of_one_weight_keeps_it():
    weight = torch.tensor([[0.5], [-2.0]])
    for name in NAMES:
        assert weight_quantizer(name)(4, weight, QuantOptions())(weight).equal(weight), name
