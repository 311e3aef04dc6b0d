"""The certificate's interval holds every partial sum, and is reached."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hawq.integer import LayerBound, TensorType
from hawq.integer.certificate import partial_sum_bound


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(-7, 7), min_size=1, max_size=4),
    st.integers(-20, 20),
    st.sampled_from([(2, False, 0), (2, False, 1), (2, True, 0), (3, False, 7)]),
)
def test_interval_holds_every_partial_sum_in_every_order(weights, bias, kind):
    source = TensorType((len(weights),), kind[0], kind[1], 1.0, kind[2])
    lo, hi = partial_sum_bound(torch.tensor([weights]), torch.tensor([bias]), source)
    codes = [c - source.zero_point for c in range(source.range[0], source.range[1] + 1)]
    sums = set()
    for values in itertools.product(codes, repeat=len(weights)):
        products = [*(v * w for v, w in zip(values, weights, strict=True)), bias]
        for size in range(len(products) + 1):
            sums.update(sum(subset) for subset in itertools.combinations(products, size))
    assert lo <= min(sums)
    assert max(sums) <= hi
    if 0 in codes:  # then any subset of products is itself a full sum, and the interval is tight
        assert (lo, hi) == (min(sums), max(sums))


def test_the_float_type_follows_the_interval():
    assert LayerBound("a", -(2**24), 2**24).dtype == torch.float32
    assert LayerBound("a", 0, 2**24 + 1).dtype == torch.float64
    assert not LayerBound("a", 0, 2**31).fits_int32
