"""Folders of image files: a folder per class, or a labels.csv; made here and real."""

import numpy as np
import pytest
import torch
from PIL import Image
from shared_data import nips17, shared

from hawq.data import load_data
from hawq.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from hawq.data.splits import Augment
from hawq.errors import HawqError, UsageError
from hawq.models import InputSpec

COLOURS = {"apple": (200, 0, 0), "leaf": (0, 200, 0), "sea": (0, 0, 200)}


@pytest.fixture
def folders(tmp_path):
    """`train/` with two images per class and `val/` with one, of one colour each, PNG and JPEG."""
    for split, suffixes in (("train", ["png", "JPEG"]), ("val", ["jpg"])):
        for name, colour in COLOURS.items():
            (tmp_path / split / name).mkdir(parents=True)
            for suffix in suffixes:
                Image.new("RGB", (50, 40), colour).save(tmp_path / split / name / f"one.{suffix}")
    (tmp_path / "train" / "apple" / "notes.txt").write_text("not an image")
    return tmp_path


@pytest.fixture
def listed(tmp_path):
    """Return a function that writes a labels.csv beside a colour image, a grey one and a palette one."""
    Image.new("RGB", (40, 60), (10, 20, 30)).save(tmp_path / "a.png")
    Image.new("L", (40, 40), 99).save(tmp_path / "b.png")
    Image.new("P", (40, 40)).save(tmp_path / "c.png")

    def write(text):
        (tmp_path / "labels.csv").write_text(text)
        return load_data(str(tmp_path), size=16)

    return write


def test_labels_are_the_sorted_class_folders(folders):
    data = load_data(str(folders), size=16)
    assert (data.name, data.num_classes, data.augment) == ("imagefolder", 3, Augment.RESIZED_CROP_FLIP)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    images, labels = next(data.batches("test", 3, raw=True))
    assert images.shape == (3, 3, 16, 16)
    assert labels.tolist() == images.float().mean((2, 3)).argmax(1).tolist() == [0, 1, 2]


def test_images_of_one_colour_keep_it_however_they_are_cropped(folders):
    data = load_data(str(folders), size=16)
    for augment in (False, True):
        images, labels = next(data.batches("train", 6, shuffle=True, augment=augment, raw=True, seed=1))
        expected = torch.tensor(list(COLOURS.values()))[labels][:, :, None, None]
        assert int((images.int() - expected).abs().max()) <= 3  # JPEG's rounding of colours


def test_workers_change_nothing(folders):
    data = load_data(str(folders), size=16)
    request = {"shuffle": True, "augment": True, "seed": 2, "epoch": 5}
    for one, other in zip(
        data.batches("train", 2, **request), data.batches("train", 2, **request, workers=3), strict=True
    ):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_a_subset_keeps_files_with_their_labels(folders):
    part = load_data(str(folders), size=16).subset(0.5, 1)
    assert len(part.train) == 3
    assert [path.parent.name for path in part.train.sources] == [list(COLOURS)[i] for i in part.train.labels.tolist()]


@pytest.mark.parametrize(("size", "resize"), [(None, 256), (224, 256), (299, 342)])
def test_sizes_are_those_of_imagenet(folders, size, resize):
    found = load_data(str(folders), size=size).preprocessing
    assert (found.size, found.resize) == (size or 224, resize)
    assert (found.mean, found.std, found.interpolation) == (IMAGENET_MEAN, IMAGENET_STD, "bilinear")


def test_the_network_is_asked_and_the_user_has_the_last_word(folders):
    spec = InputSpec(20, (0.5,) * 3, (0.25,) * 3, "bicubic", 0.8)
    found = load_data(str(folders), spec=spec, interpolation="bilinear").preprocessing
    assert (found.size, found.resize, found.mean, found.std) == (20, 25, (0.5,) * 3, (0.25,) * 3)
    assert found.interpolation == "bilinear"
    assert load_data(str(folders), spec=InputSpec(), size=20).preprocessing.mean == IMAGENET_MEAN


def test_class_folders_must_agree(folders):
    (folders / "val" / "zebra").mkdir()
    with pytest.raises(HawqError, match=r"classes that .*train lacks: zebra"):
        load_data(str(folders))


def test_a_split_without_images_is_refused(folders):
    for path in (folders / "val").glob("*/*"):
        path.unlink()
    with pytest.raises(UsageError, match="val holds no images"):
        load_data(str(folders))


def test_a_damaged_image_is_named(folders):
    path = folders / "val" / "leaf" / "one.jpg"
    content = path.read_bytes()
    for damaged, reason in ((b"hello", "no image of a known format"), (content[:-200], "cannot be decoded")):
        path.write_bytes(damaged)
        with pytest.raises(HawqError, match=f"leaf/one.jpg.*{reason}"):
            list(load_data(str(folders), size=16).batches("test", 1, workers=2))


def test_a_folder_of_another_layout_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UsageError, match=r"neither train/ and val/ nor a labels\.csv"):
        load_data(str(tmp_path))


def test_listed_images_serve_both_purposes_and_become_rgb(listed):
    data = listed("file,author,class_index\na.png,someone,3\nb.png,someone,0\nc.png,,1\n")
    assert data.train is data.test
    assert data.train.labels.tolist() == [3, 0, 1]
    images, _ = next(data.batches("test", 3, raw=True))
    assert np.array_equal(images[0, :, 0, 0].numpy(), [10, 20, 30])
    assert torch.equal(images[1], torch.full((3, 16, 16), 99, dtype=torch.uint8))


@pytest.mark.parametrize(("label", "classes"), [(0, 1000), (999, 1000), (1000, 1001), (21840, 21841)])
def test_listed_classes_are_imagenets_or_more(listed, label, classes):
    assert listed(f"file,class_index\na.png,{label}\n").num_classes == classes


@pytest.mark.parametrize(
    ("text", "error", "named"),
    [
        ("file,label\na.png,0\n", HawqError, "needs the columns 'file' and 'class_index'"),
        ("file,class_index\na.png,cat\n", HawqError, "cat"),
        ("file,class_index\na.png\n", HawqError, "needs the columns"),
        ("file,class_index\na.png,-1\n", HawqError, "negative class_index"),
        ("file,class_index\n", UsageError, "holds no images"),
        ("", UsageError, "holds no images"),
    ],
)
def test_a_broken_list_is_refused(listed, text, error, named):
    with pytest.raises(error, match=named):
        listed(text)


def test_a_listed_file_that_is_missing_is_named(listed):
    data = listed("file,class_index\na.png,0\ngone.png,1\n")
    with pytest.raises(HawqError, match=r"gone\.png cannot be decoded"):
        list(data.batches("test", 2))


def test_real_listed_images_match_a_separate_reader():
    data = load_data(str(shared("imagenet/nips17")), interpolation="bicubic")
    assert (len(data.test), data.num_classes) == (500, 1000)
    expected, labels = nips17(6)
    images, found = next(data.batches("test", 6, raw=True))
    assert torch.equal(found, labels)
    assert torch.equal(images, expected)


def test_real_class_folders():
    data = load_data(str(shared("imagenette")))
    assert (len(data.train), len(data.test), data.num_classes) == (1800, 600, 10)
    assert torch.bincount(data.train.labels).tolist() == [180] * 10
    images, _ = next(data.batches("train", 4, shuffle=True, augment=True))
    assert images.shape == (4, 3, 224, 224)
