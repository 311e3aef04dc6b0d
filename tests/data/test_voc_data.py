"""VOC's folders: masks and boxes follow their images, and damaged files are named."""

import pytest
import torch
from PIL import Image
from voc_tree import NAMES, annotation, entry, voc_tree

from hawq.data import load_data
from hawq.data.voc import CLASSES
from hawq.errors import HawqError, UsageError
from hawq.models import InputSpec
from hawq.task import Task
from hawq.train.config import TrainConfig
from hawq.train.feed import Feed

BOTH = pytest.mark.parametrize("name", ["voc-segmentation", "voc-detection"])


@pytest.fixture
def root(tmp_path):
    return voc_tree(tmp_path)


def _first(data, split="train", **request):
    return next(data.batches(split, 2, raw=True, **request))


def _annotate(root, *objects, **size):
    """Replace the annotation of the first image and return its objects, scaled to 16x16."""
    (root / "Annotations" / f"{NAMES[0]}.xml").write_text(annotation(*objects, **size))
    return _first(load_data("voc-detection", root, size=16))[1][0]


def test_masks_are_resized_like_their_images_and_keep_their_values(root):
    data = load_data("voc-segmentation", root, size=16)
    for split, names in (("train", (0, 1)), ("test", (2, 3))):
        images, masks = _first(data, split)
        assert (images.shape, images.dtype, masks.dtype) == ((2, 3, 16, 16), torch.uint8, torch.int64)
        for index, image, mask in zip(names, images, masks, strict=True):
            assert int((image[0].int() - 60 * index).abs().max()) <= 2  # JPEG's rounding of colours
            expected = torch.zeros(16, 16, dtype=torch.int64)
            expected[:, :8], expected[:8, 8:] = index + 1, 255
            assert torch.equal(mask, expected)


def test_boxes_are_scaled_like_their_images(root):
    data = load_data("voc-detection", root, size=16)
    _, (one, other) = _first(data)
    # pixels 1..20 of 40 and 1..20 of 20, first and last inside: the left half
    assert one.boxes.tolist() == other.boxes.tolist() == [[0, 0, 8, 16]]
    assert [*one.labels.tolist(), *other.labels.tolist()] == [1, 2]
    assert (one.boxes.dtype, one.labels.dtype, one.difficult.tolist()) == (torch.float32, torch.int64, [False])


def test_annotations_may_have_parts_fractions_and_no_flags(root):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    found = _annotate(
        root,
        entry("person", 11, 6, 30.5, 15, part=part),
        entry("tvmonitor", 40, 20, 40, 20, difficult="<difficult>1</difficult>"),
        entry("dog", 1, 1, 2, 2, difficult=""),
    )
    expected = [[4, 4, 12.2, 12], [15.6, 15.2, 16, 16], [0, 0, 0.8, 1.6]]  # times 16 / 40 across, 16 / 20 down
    torch.testing.assert_close(found.boxes, torch.tensor(expected))
    assert found.labels.tolist() == [15, 20, 12]
    assert found.difficult.tolist() == [False, True, False]


def test_an_image_may_show_nothing(root):
    found = _annotate(root)
    assert (found.boxes.shape, found.labels.shape, found.difficult.shape) == ((0, 4), (0,), (0,))


@BOTH
def test_what_is_known_of_the_data(root, name):
    data = load_data(name, root)
    assert (data.name, data.num_classes, data.class_names) == ("voc", 21, CLASSES)
    assert (CLASSES[0], CLASSES[1], CLASSES[20], len(CLASSES)) == ("background", "aeroplane", "tvmonitor", 21)
    assert data.task.value == name.removeprefix("voc-")
    assert data.preprocessing.resize is None
    assert (len(data.train), len(data.test)) == (2, 2)


@pytest.mark.parametrize("task", [Task.SEGMENTATION, Task.DETECTION])
def test_the_network_says_what_it_is_for(root, task):
    for name in ("voc", str(root)):
        data = load_data(name, root, spec=InputSpec(size=24, task=task))
        assert (data.task, data.preprocessing.size) == (task, 24)


@pytest.mark.parametrize(("spec", "named"), [(None, "nobody says"), (InputSpec(task=Task.CLASSIFICATION), "classif")])
def test_a_network_for_neither_masks_nor_boxes_is_asked_about(root, spec, named):
    with pytest.raises(UsageError, match=f"{named}.*give --data voc-segmentation or --data voc-detection"):
        load_data("voc", root, spec=spec)


def test_a_test_list_serves_where_its_annotations_are_there(root):
    lists = root / "ImageSets" / "Main"
    (lists / "trainval.txt").write_text("\n".join(NAMES[:3]))
    (lists / "test.txt").write_text(NAMES[3])
    assert [split.names for split in _splits(root)] == [NAMES[:3], NAMES[3:]]
    (root / "Annotations" / f"{NAMES[3]}.xml").unlink()
    assert [split.names for split in _splits(root)] == [NAMES[:2], NAMES[2:]]


def _splits(root):
    data = load_data("voc-detection", root)
    return data.train, data.test


@BOTH
def test_workers_subsets_and_augmentation_keep_images_with_their_targets(root, name):
    data = load_data(name, root, size=16)
    alone = list(data.batches("train", 1, shuffle=True, augment=True, seed=1))
    together = list(data.batches("train", 1, shuffle=True, seed=1, workers=2))
    for (image, target), (other, others) in zip(alone, together, strict=True):
        assert torch.equal(image, other)
        assert str(target) == str(others)
    part = data.subset(0.5, 0)
    assert len(part.train) == 1
    image, target = _first(part)
    label = int(target[0][0, 0] if data.task is Task.SEGMENTATION else target[0].labels[0])
    assert abs(int(image[0, 0, 0, 0]) - 60 * (label - 1)) <= 2


@pytest.mark.parametrize("folder", ["JPEGImages", "Annotations"])
def test_a_folder_that_lacks_one_is_refused(root, folder):
    (root / folder).rename(root / "elsewhere")
    with pytest.raises(UsageError, match=f"lacks {folder}; give the folder that holds JPEGImages"):
        load_data("voc-detection", root)


@pytest.mark.parametrize("listed", ["train", "val"])
def test_a_list_that_is_missing_or_empty_is_refused(root, listed):
    path = root / "ImageSets" / "Segmentation" / f"{listed}.txt"
    path.write_text("\n")
    with pytest.raises(UsageError, match=f"{listed}.txt is missing or empty"):
        load_data("voc-segmentation", root)
    path.unlink()
    with pytest.raises(UsageError, match=f"{listed}.txt is missing or empty"):
        load_data("voc-segmentation", root)


@pytest.mark.parametrize("file", [f"JPEGImages/{NAMES[0]}.jpg", f"SegmentationClass/{NAMES[0]}.png"])
def test_a_torn_or_missing_image_is_named(root, file):
    data, path = load_data("voc-segmentation", root), root / file
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(HawqError, match=f"{path.name} cannot be decoded"):
        _first(data)
    path.unlink()
    with pytest.raises(HawqError, match=f"{path.name} cannot be decoded.*No such file"):
        _first(data)


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        (Image.new("RGB", (40, 20)), r"an image of colours \(RGB\)"),
        (Image.new("L", (40, 20), 21), r"holds the class 21; a mask of VOC holds 0\.\.20 and 255"),
    ],
)
def test_a_mask_of_something_else_is_refused(root, mask, named):
    mask.save(root / "SegmentationClass" / f"{NAMES[0]}.png")
    with pytest.raises(HawqError, match=f"{NAMES[0]}.png.*{named}"):
        _first(load_data("voc-segmentation", root))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("<annotation><size>", "cannot be read"),
        ("", "cannot be read"),
        ("<annotation/>", "lacks size/width"),
        (annotation(width=0), "cannot be read"),
        (annotation("<object><name>dog</name></object>"), "<object> lacks bndbox/xmin"),
        (annotation(entry("dog", 1, 1, "wide", 2)), "'wide'"),
        (annotation(entry("unicorn", 1, 1, 2, 2)), "an object 'unicorn'; those of VOC are aeroplane"),
        (annotation(entry("background", 1, 1, 2, 2)), "an object 'background'"),
        (annotation(entry("dog", 9, 1, 5, 2)), "an empty box of 'dog'"),
    ],
)
def test_a_broken_annotation_is_named(root, text, named):
    (root / "Annotations" / f"{NAMES[0]}.xml").write_text(text)
    with pytest.raises(HawqError, match=f"{NAMES[0]}.xml.*{named}"):
        _first(load_data("voc-detection", root))


@BOTH
def test_training_is_refused(root, name):
    with pytest.raises(UsageError, match=r"training is for classification.*hawq ptq"):
        Feed(load_data(name, root), TrainConfig(epochs=1, lr=0.1))
