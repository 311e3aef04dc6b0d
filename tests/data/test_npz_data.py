"""Both kinds of .npz file, made here and real; every way such a file can be wrong."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from shared_data import shared

from hawq.data import load_data
from hawq.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from hawq.data.splits import Augment, FileSplit, MemorySplit
from hawq.errors import HawqError, UsageError
from hawq.models import InputSpec

LABELS = np.array([0, 2, 1, 6], np.uint8)


def _pixels(size=32, count=4):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def _blob(pixels):
    files = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG")
        files.append(file.getvalue())
    return np.frombuffer(b"".join(files), np.uint8).copy(), np.cumsum([0, *map(len, files)])


def _arrays(size=32, **change):
    x = _pixels(size)
    arrays = {"train_x": x, "train_y": LABELS, "test_x": x[:2], "test_y": LABELS[:2], **change}
    return {name: array for name, array in arrays.items() if array is not None}


def _jpeg_arrays(size=32, **change):
    blob, offsets = _blob(_pixels(size))
    arrays = {
        **{"train_blob": blob, "train_off": offsets, "train_y": LABELS},
        **{"test_blob": blob, "test_off": offsets[:3], "test_y": LABELS[:2], **change},
    }
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.fixture
def load(tmp_path):
    """Write arrays to a file and load it by its path alone."""

    def _load(arrays, **request):
        np.savez_compressed(tmp_path / "images.npz", **arrays)
        return load_data(str(tmp_path / "images.npz"), **request)

    return _load


def test_pixels_arrive_as_they_are(load):
    data = load(_arrays())
    images, labels = next(data.batches("train", 4, raw=True))
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), _pixels())
    assert labels.tolist() == LABELS.tolist()
    assert labels.dtype == torch.int64
    assert (data.name, data.num_classes, len(data.test), data.augment) == ("npz", 7, 2, Augment.CROP_FLIP)


@pytest.mark.parametrize("make", [_arrays, _jpeg_arrays])
def test_small_images_take_cifars_numbers_and_do_not_ask_the_network(load, make):
    found = load(make(), spec=InputSpec(224, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875)).preprocessing
    assert (found.size, found.resize, found.mean, found.std) == (32, None, IMAGENET_MEAN, IMAGENET_STD)


def test_jpeg_bytes_are_decoded_each_to_its_own_image(load):
    data = load(_jpeg_arrays())
    images, labels = next(data.batches("train", 4, raw=True))
    blob, offsets = _blob(_pixels())
    for index in range(4):
        expected = np.asarray(Image.open(io.BytesIO(blob[offsets[index] : offsets[index + 1]].tobytes())))
        assert np.array_equal(images[index].permute(1, 2, 0).numpy(), expected)
    assert (labels.tolist(), data.num_classes, len(data.test)) == (LABELS.tolist(), 7, 2)


@pytest.mark.parametrize("make", [_arrays, _jpeg_arrays])
def test_resized_small_images_keep_their_random_crops(load, make):
    data = load(make(), size=16)
    assert isinstance(data.train, MemorySplit)
    plain, _ = next(data.batches("train", 4, raw=True))
    assert plain.shape == (4, 3, 16, 16)
    varied = [next(data.batches("train", 4, raw=True, augment=True, epoch=epoch))[0] for epoch in range(6)]
    unmoved = [plain[0], plain[0].flip(2)]
    assert any(not any(torch.equal(images[0], same) for same in unmoved) for images in varied)


@pytest.mark.parametrize("make", [_arrays, _jpeg_arrays])
def test_large_images_are_resized_and_ask_the_network(load, make):
    data = load(make(80), spec=InputSpec(64, (0.5,) * 3, (0.25,) * 3, "bicubic", 0.8))
    found = data.preprocessing
    assert (found.size, found.resize, found.mean, found.interpolation) == (64, 80, (0.5,) * 3, "bicubic")
    assert isinstance(data.train, FileSplit)
    assert next(data.batches("train", 3, augment=True))[0].shape == (3, 3, 64, 64)
    assert data.augment is Augment.RESIZED_CROP_FLIP
    assert len(data.subset(0.5, 0).train) == 2


_WRONG = {
    "no test": (_arrays(test_x=None, test_y=None), "lacks the arrays test_x, test_y"),
    "no labels": (_jpeg_arrays(train_y=None), "lacks the arrays train_y"),
    "foreign": ({"weights": np.zeros(3)}, "lacks the arrays train_blob, .* it has weights"),
    "floats": (_arrays(train_x=_pixels().astype(np.float32)), "train_x is float32"),
    "channels first": (_arrays(test_x=_pixels().transpose(0, 3, 1, 2)), r"test_x is uint8 \(4, 3, 32, 32\)"),
    "too few labels": (_arrays(train_y=LABELS[:3]), "4 images and 3 labels"),
    "too few offsets": (_jpeg_arrays(train_off=_blob(_pixels())[1][:-1]), "3 images and 4 labels"),
    "negative label": (_arrays(train_y=np.array([0, -1, 2, 3])), "train_y is int64"),
    "float labels": (_arrays(test_y=np.array([0.5, 1.0])), "test_y is float64"),
    "one-hot labels": (_arrays(train_y=np.eye(4, dtype=np.uint8)), r"train_y is uint8 \(4, 4\)"),
    "empty": (_arrays(train_x=_pixels()[:0], train_y=LABELS[:0]), "N at least 1"),
    "blob of ints": (_jpeg_arrays(train_blob=np.zeros(9, np.int32)), "train_blob is int32"),
    "offsets beyond": (_jpeg_arrays(train_blob=_blob(_pixels())[0][:-9]), "train_off must rise"),
    "offsets back": (_jpeg_arrays(test_off=np.array([9, 5, 20])), "test_off must rise"),
    "no JPEG": (_jpeg_arrays(train_blob=np.zeros_like(_blob(_pixels())[0])), "no image of a known format"),
    "pickle": ({"train_x": np.array([{}], dtype=object)}, "without pickle"),
}


@pytest.mark.parametrize("case", _WRONG)
def test_wrong_arrays_are_named(load, case):
    arrays, named = _WRONG[case]
    with pytest.raises(HawqError, match=named):
        load(arrays)


def test_a_cut_jpeg_is_reported_when_it_is_read(load):
    blob, offsets = _blob(_pixels(80))
    blob[offsets[2] + 300 : offsets[3]] = 0
    blob[offsets[2] : offsets[2] + 4] = 0
    data = load(_jpeg_arrays(80, train_blob=blob))
    assert len(list(data.batches("train", 1, limit=2))) == 2
    for workers in (0, 2):
        with pytest.raises(HawqError, match="no image of a known format"):
            list(data.batches("train", 1, workers=workers))


def test_torn_and_foreign_files_are_reported(tmp_path):
    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, **_arrays())
    content = whole.read_bytes()
    damaged = bytearray(content)
    damaged[200:400] = b"\xff" * 200
    bare = io.BytesIO()
    np.save(bare, _pixels())
    for name, written in {
        "cut": content[: len(content) // 2], "empty": b"", "text": b"train_x, train_y", "damaged": bytes(damaged),
        "bare": bare.getvalue(),
    }.items():  # fmt: skip
        path = tmp_path / f"{name}.npz"
        path.write_bytes(written)
        with pytest.raises(HawqError, match=f"{name}.npz cannot be read"):
            load_data(str(path))


def test_a_missing_file_is_a_wrong_request(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_data("npz", tmp_path / "nothing.npz")
    with pytest.raises(UsageError, match="needs --data-path"):
        load_data("npz")


def test_real_exact_cifar10():
    data = load_data(str(shared("cifar10/cifar10_lossless.npz")))
    assert (len(data.train), len(data.test), data.num_classes) == (7728, 500, 10)
    with np.load(shared("cifar10/cifar10_lossless.npz")) as arrays:
        expected, labels = arrays["test_x"][:8], arrays["test_y"][:8]
    images, found = next(data.batches("test", 8, raw=True))
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)
    assert found.tolist() == labels.tolist()


def test_real_jpeg_cifar10_lies_near_the_exact_pixels(load):
    """The README beside the files states an RMS error of about 8 grey levels between the two."""
    jpeg, exact = (np.load(shared(f"cifar10/cifar10_{kind}.npz")) for kind in ("jpeg", "lossless"))
    count = 300
    part = {
        **{"train_blob": jpeg["train_blob"], "train_off": jpeg["train_off"][: count + 1]},
        **{"train_y": jpeg["train_y"][:count], "test_blob": jpeg["test_blob"], "test_off": jpeg["test_off"][:2]},
        "test_y": jpeg["test_y"][:1],
    }
    # all 50,000 take eight seconds; these arrays are the real ones, cut
    images = load(part).train.images
    assert exact["train_idx"][:count].tolist() == list(range(count))
    error = images.permute(0, 2, 3, 1).double().numpy() - exact["train_x"][:count]
    assert 6 < np.sqrt((error**2).mean()) < 10
