"""Normalisation, JSON, and who decides: the data set, then the network, then the user."""

import json

import numpy as np
import pytest
import torch

from hawq.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from hawq.errors import HawqError, UsageError
from hawq.models import InputSpec

DEFAULT = Preprocessing(224, 256, IMAGENET_MEAN, IMAGENET_STD)


def test_normalise_is_the_formula_in_float64():
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = DEFAULT.normalise(pixels)
    mean, std = (np.array(values)[None, :, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    assert found.dtype == torch.float32
    # three float32 roundings of numbers up to 2.7
    np.testing.assert_allclose(found.numpy(), (pixels.numpy() / 255 - mean) / std, atol=1e-6)


def test_json_round_trips_through_text():
    for preprocessing in (DEFAULT, Preprocessing(32, None, (0.5,) * 3, (0.25,) * 3, "bicubic")):
        assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing


@pytest.mark.parametrize("change", [{"mean": None}, {"std": 1.0}, {"colour": "BGR"}], ids=str)
def test_foreign_json_is_refused(change):
    with pytest.raises(HawqError, match="its fields are size, resize, mean, std, interpolation"):
        Preprocessing.from_json({**DEFAULT.to_json(), **change})


def test_missing_fields_are_refused():
    with pytest.raises(HawqError, match="not understood"):
        Preprocessing.from_json({"size": 32})


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (299, 342), (192, 219)])
def test_resize_follows_the_size(size, resize):
    assert DEFAULT.refined(None, {"size": size}).resize == resize


def test_the_network_goes_before_the_data_set_and_the_user_before_both():
    spec = InputSpec(240, (0.5,) * 3, None, "bicubic", 0.96)
    found = DEFAULT.refined(spec, {"size": None, "mean": (0.1, 0.2, 0.3), "std": None})
    assert found == Preprocessing(240, 250, (0.1, 0.2, 0.3), IMAGENET_STD, "bicubic")
    assert DEFAULT.refined(spec, {"size": 96, "interpolation": "bilinear"}).resize == 100


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(UsageError, match="size 224, resized to 200"):
        Preprocessing(224, 200, IMAGENET_MEAN, IMAGENET_STD)
