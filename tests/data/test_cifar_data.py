"""CIFAR in torchvision's layout: missing folders, and tiny files of the same format (whose md5 sums cannot match)."""

import pickle

import numpy as np
import pytest
import torch

from hawq.data import load_data
from hawq.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from hawq.data.splits import Augment
from hawq.errors import UsageError
from hawq.models import InputSpec

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
NAMES = {
    "cifar10": ([f"data_batch_{i}" for i in range(1, 6)], "test_batch", "labels", "batches.meta", "label_names"),
    "cifar100": (["train"], "test", "fine_labels", "meta", "fine_label_names"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_missing_or_empty_folder_is_a_wrong_request(name, tmp_path):
    with pytest.raises(UsageError, match="needs --data-path"):
        load_data(name)
    with pytest.raises(UsageError, match="does not exist"):
        load_data(name, tmp_path / "nothing")
    with pytest.raises(UsageError, match=f"no whole {name} .{FOLDERS[name]}."):
        load_data(name, tmp_path)
    (tmp_path / FOLDERS[name]).mkdir()
    with pytest.raises(UsageError, match=f"no whole {name}"):
        load_data(str(tmp_path))


@pytest.fixture(params=FOLDERS)
def made(request, tmp_path, monkeypatch):
    """Two images per file, in torchvision's layout; its check of md5 sums is off."""
    name = request.param
    train, test, key, meta, meta_key = NAMES[name]
    folder = tmp_path / FOLDERS[name]
    folder.mkdir()
    generator = np.random.default_rng(0)
    written = {}
    for index, file in enumerate([*train, test]):
        written[file] = generator.integers(0, 256, (2, 3072), dtype=np.uint8)
        (folder / file).write_bytes(pickle.dumps({"data": written[file], key: [index, index + 1]}))
    (folder / meta).write_bytes(pickle.dumps({meta_key: ["name"] * 10}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    return name, tmp_path, np.concatenate([written[file] for file in train]), written[test]


def test_pixels_and_labels_come_in_the_order_of_the_files(made):
    name, path, train, test = made
    data = load_data(name, path, spec=InputSpec(224, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.9))
    assert np.array_equal(data.train.images.numpy(), train.reshape(-1, 3, 32, 32))
    assert np.array_equal(data.test.images.numpy(), test.reshape(-1, 3, 32, 32))
    assert data.train.labels.tolist() == [index // 2 + index % 2 for index in range(len(train))]
    assert (data.name, data.num_classes) == (name, {"cifar10": 10, "cifar100": 100}[name])
    found = data.preprocessing
    assert (found.size, found.resize, found.mean, found.std) == (32, None, IMAGENET_MEAN, IMAGENET_STD)
    assert data.augment is Augment.CROP_FLIP


def test_the_folder_is_recognised(made):
    name, path, _, _ = made
    assert load_data(str(path)).name == name


def test_another_size_is_the_size_of_the_images(made):
    name, path, _, _ = made
    data = load_data(name, path, size=48)
    assert next(data.batches("test", 2))[0].shape == (2, 3, 48, 48)
    assert torch.equal(next(data.batches("test", 2, raw=True))[0], data.test.images)
