"""Batches depend on their arguments alone: not on workers, and not on how images are grouped."""

import math

import pytest
import torch

from hawq.data import ImageData, Preprocessing, load_data
from hawq.data.splits import Augment, MemorySplit
from hawq.errors import UsageError

COUNT = 50


@pytest.fixture(scope="module")
def data():
    """Fifty images whose label is their index and whose pixels are random."""
    images = torch.randint(0, 256, (COUNT, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = MemorySplit(images, torch.arange(COUNT))
    preprocessing = Preprocessing(8, None, (0.5,) * 3, (0.25,) * 3)
    return ImageData("made", split, MemorySplit(images[:7], torch.arange(7)), COUNT, preprocessing, Augment.CROP_FLIP)


def _all(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_every_image_comes_once_in_order(data):
    batches = list(data.batches("train", 16, raw=True))
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
    images, labels = _all(batches)
    assert torch.equal(images, data.train.images)
    assert torch.equal(labels, torch.arange(COUNT))


def test_images_are_normalised_unless_raw(data):
    raw, _ = _all(data.batches("test", 3, raw=True))
    images, _ = _all(data.batches("test", 3))
    assert raw.dtype == torch.uint8
    assert images.dtype == torch.float32
    assert torch.equal(images, data.preprocessing.normalise(raw))


def test_shuffling_keeps_images_with_their_labels(data):
    images, labels = _all(data.batches("train", 16, shuffle=True, raw=True, seed=1))
    assert labels.tolist() != list(range(COUNT))
    assert sorted(labels.tolist()) == list(range(COUNT))
    assert torch.equal(images, data.train.images[labels])


def test_seed_and_epoch_decide(data):
    def labels(seed, epoch):
        return _all(data.batches("train", 16, shuffle=True, seed=seed, epoch=epoch))[1].tolist()

    assert labels(0, 0) == labels(0, 0)
    assert len({tuple(labels(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_change_nothing(data, workers):
    request = {"shuffle": True, "augment": True, "seed": 3, "epoch": 2}
    alone = list(data.batches("train", 4, **request))
    together = list(data.batches("train", 4, **request, workers=workers))
    assert len(alone) == len(together) == 13
    for (images, labels), (others, other_labels) in zip(alone, together, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


def test_variation_does_not_depend_on_the_batch_size_or_global_state(data):
    request = {"shuffle": True, "augment": True, "seed": 3, "raw": True}
    torch.manual_seed(1)
    one, _ = _all(data.batches("train", 7, **request))
    torch.manual_seed(2)
    other, _ = _all(data.batches("train", 50, **request))
    assert torch.equal(one, other)


def test_reading_leaves_the_global_generator_alone(data):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(data.batches("train", 7, shuffle=True, augment=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_reader_may_stop_early(data):
    batches = data.batches("train", 1, workers=2)
    assert int(next(batches)[1]) == 0
    batches.close()


@pytest.mark.parametrize(("limit", "sizes"), [(0, []), (3, [3]), (16, [16]), (17, [16, 1]), (1000, [16, 16, 16, 2])])
@pytest.mark.parametrize("workers", [0, 2])
def test_limit_is_exact(data, limit, sizes, workers):
    assert [len(y) for _, y in data.batches("train", 16, limit=limit, workers=workers)] == sizes


@pytest.mark.parametrize(
    ("split", "batch_size", "more", "named"),
    [
        ("val", 4, {}, "allowed are train and test"),
        ("train", 0, {}, "batch size 0"),
        ("train", 4, {"limit": -1}, "limit -1"),
        ("train", 4, {"workers": -1}, "workers -1"),
    ],
)
def test_impossible_requests_are_refused_at_once(data, split, batch_size, more, named):
    with pytest.raises(UsageError, match=named):
        data.batches(split, batch_size, **more)


@pytest.mark.parametrize(("percentage", "count"), [(0.0, 1), (0.0001, 1), (0.1, 5), (0.5, 25), (1.0, 50)])
def test_a_subset_keeps_a_fraction_of_the_training_images(data, percentage, count):
    part = data.subset(percentage, seed=4)
    assert len(part.train) == count
    assert len(set(part.train.labels.tolist())) == count
    assert torch.equal(part.train.images, data.train.images[part.train.labels])
    assert part.test is data.test


def test_subsets_depend_on_the_seed_alone_and_grow(data):
    drawn = {seed: data.subset(0.2, seed).train.labels.tolist() for seed in (0, 1)}
    assert drawn[0] == data.subset(0.2, 0).train.labels.tolist()
    assert drawn[0] != drawn[1]
    assert set(drawn[0]) < set(data.subset(0.4, 0).train.labels.tolist())


@pytest.mark.parametrize("percentage", [-0.1, 1.01, 50, math.nan])
def test_a_fraction_outside_0_to_1_is_refused(data, percentage):
    with pytest.raises(UsageError, match=r"0\.\.1"):
        data.subset(percentage, 0)


def test_the_embedded_data_comes_in_whole_batches():
    digits = load_data("digits")
    images, labels = next(digits.batches("train", 64, shuffle=True, augment=True))
    assert (images.shape, images.dtype) == ((64, 3, 32, 32), torch.float32)
    assert (labels.shape, labels.dtype) == ((64,), torch.int64)
    assert float(images.min()) >= -1
    assert float(images.max()) <= 1
