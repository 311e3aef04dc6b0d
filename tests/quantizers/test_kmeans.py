"""K-means weights: centroids are means of what they hold, levels are codes."""

import itertools

import pytest
import torch

from hawq.quantizers import QuantOptions, weight_quantizer
from hawq.quantizers.kmeans import KMeansWeight, centroids


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def best_partition(row, count):
    """Return the least squared error of all ways to cut sorted values into groups."""
    row = sorted(row.double().tolist())
    errors = []
    for cuts in itertools.combinations(range(1, len(row)), count - 1):
        groups = [row[a:b] for a, b in itertools.pairwise((0, *cuts, len(row)))]
        errors.append(sum((v - sum(g) / len(g)) ** 2 for g in groups for v in g))
    return min(errors)


def squared_error(levels, rows):
    return (rows.double()[..., None] - levels[:, None]).square().amin(2).sum(1)


@pytest.mark.parametrize("count", [2, 4])
def test_few_values_are_parted_nearly_as_well_as_can_be(count):
    rows = values(20, 10)
    best = torch.tensor([best_partition(row, count) for row in rows], dtype=torch.float64)
    found = squared_error(centroids(rows, count), rows)
    assert bool((found >= best - 1e-9).all())
    assert int((found <= best + 1e-9).sum()) >= 10  # Lloyd's algorithm stops at a local optimum
    assert float(found.sum()) < 1.25 * float(best.sum())


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_a_centroid_is_the_mean_of_its_values(bits):
    rows = values(6, 500)
    levels = centroids(rows, 1 << bits)
    nearest = (rows.double()[..., None] - levels[:, None]).abs().argmin(2)
    for row, own, chosen in zip(rows.double(), levels, nearest, strict=True):
        for index in chosen.unique():
            # 50 rounds: centroids have all but settled
            assert float(row[chosen == index].mean()) == pytest.approx(float(own[index]), abs=0.02)


@pytest.mark.parametrize("bits", [2, 4])
def test_it_errs_less_than_even_levels(bits):
    weight = values(8, 40, 3, 3)
    errors = {
        name: (weight_quantizer(name)(bits, weight, QuantOptions())(weight) - weight).square().flatten(1).sum(1)
        for name in ("minmax", "mse", "kmeans")
    }
    assert bool((errors["kmeans"] < errors["minmax"]).all())
    assert float(errors["kmeans"].sum()) < float(errors["mse"].sum())


@pytest.mark.parametrize("bits", [1, 3, 4])
def test_levels_are_codes_and_rounding_them_costs_little(bits):
    weight = values(8, 5, 3, 3)
    quantizer = KMeansWeight(bits, weight, QuantOptions())
    codes, scale = quantizer.codes(weight)
    assert quantizer(weight).equal(codes * scale.view(-1, 1, 1, 1))
    assert codes.abs().flatten(1).amax(1).tolist() == [127] * 8
    assert all(len(row.unique()) <= 1 << bits for row in codes)
    rows = weight.flatten(1)
    exact = float(squared_error(centroids(rows, 1 << bits), rows).sum())
    assert float((quantizer(weight) - weight).double().square().sum()) < 1.01 * exact


def test_fewer_weights_than_levels_are_kept_to_the_fine_scale():
    weight = values(5, 1, 3, 3)
    error = (KMeansWeight(4, weight, QuantOptions())(weight) - weight).abs().flatten(1).amax(1)
    assert bool((error <= weight.flatten(1).abs().amax(1) / 254 * 1.001).all())


def test_a_layer_may_share_its_levels():
    weight = values(6, 20)
    codes, scale = KMeansWeight(2, weight, QuantOptions(weight_group=0)).codes(weight)
    assert len(codes.unique()) <= 4
    assert len(scale.unique()) == 1
