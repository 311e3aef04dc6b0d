"""The embedded digits: split, pixels and what overrides change."""

import pytest
import torch
from sklearn.datasets import load_digits

from hawq.data import load_data
from hawq.data.splits import Augment
from hawq.errors import UsageError
from hawq.models import InputSpec


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def test_every_image_is_in_one_split(digits):
    """Count identical images on both sides: together the splits hold exactly what scikit-learn has."""
    raw = load_digits()
    assert len(digits.train) + len(digits.test) == len(raw.target) == 1797
    labels = torch.cat([digits.train.labels, digits.test.labels])
    assert torch.bincount(labels).tolist() == torch.bincount(torch.from_numpy(raw.target)).tolist()
    train, test = ({image.numpy().tobytes() for image in split.images} for split in (digits.train, digits.test))
    assert not train & test
    assert len(train | test) == len({image.tobytes() for image in raw.images})


def test_each_class_gives_a_fifth_to_the_test(digits):
    for label in range(10):
        train, test = (int((split.labels == label).sum()) for split in (digits.train, digits.test))
        assert test == -(-(train + test) // 5)


def test_loading_twice_gives_equal_bytes(digits):
    again = load_data("digits")
    for one, other in ((digits.train, again.train), (digits.test, again.test)):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_images_are_grey_and_use_the_whole_range(digits):
    images = digits.train.images
    assert images.shape == (len(digits.train), 3, 32, 32)
    assert images.dtype == torch.uint8
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])
    assert (int(images.min()), int(images.max())) == (0, 255)


def test_the_network_is_not_asked_but_the_user_is():
    spec = InputSpec(64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 0.9)
    own = load_data("digits", spec=spec).preprocessing
    assert (own.size, own.resize, own.mean, own.std) == (32, None, (0.5,) * 3, (0.5,) * 3)
    data = load_data("digits", spec=spec, size=20, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bicubic")
    assert data.train.images.shape[1:] == (3, 20, 20)
    assert (data.preprocessing.mean, data.preprocessing.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert data.augment is Augment.SHIFT


def test_bicubic_differs_from_bilinear(digits):
    assert not torch.equal(load_data("digits", interpolation="bicubic").test.images, digits.test.images)


@pytest.mark.parametrize(
    "overrides",
    [{"size": 0}, {"size": -32}, {"interpolation": "nearest"}, {"mean": (0.5,)}, {"std": (0.5, 0.0, 0.5)}],
    ids=lambda overrides: next(iter(overrides)),
)
def test_impossible_overrides_are_refused(overrides):
    with pytest.raises(UsageError, match=next(iter(overrides))):
        load_data("digits", **overrides)
