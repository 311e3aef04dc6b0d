"""mAP of hand-made boxes in several images and classes; expected figures are worked out by hand."""

import pytest
import torch

from hawq.boxes import Detections, Objects
from hawq.errors import HawqError
from hawq.evaluation import mean_average_precision

LEFT, RIGHT, BELOW = [0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]


def _objects(*entries):
    """Return objects of (label, box) or (label, box, difficult)."""
    boxes = torch.tensor([entry[1] for entry in entries]).float().view(-1, 4)
    labels = torch.tensor([entry[0] for entry in entries], dtype=torch.int64)
    return Objects(boxes, labels, torch.tensor([len(entry) == 3 for entry in entries], dtype=torch.bool))


def _detections(*entries):
    """Return detections of (label, box, score)."""
    boxes = torch.tensor([entry[1] for entry in entries]).float().view(-1, 4)
    labels = torch.tensor([entry[0] for entry in entries], dtype=torch.int64)
    return Detections(boxes, torch.tensor([entry[2] for entry in entries]).float(), labels)


def _measured(truths, found, size=8):
    found = iter([found[i : i + size] for i in range(0, len(found), size)])
    batches = [(torch.zeros(len(truths[i : i + size]), 3, 4, 4), truths[i : i + size])
               for i in range(0, len(truths), size)]  # fmt: skip
    return mean_average_precision(lambda images: next(found), batches)


TRUTHS = [_objects((1, LEFT), (1, RIGHT), (2, BELOW)), _objects((1, LEFT), (2, LEFT, "difficult")), _objects()]
FOUND = [
    _detections((1, BELOW, 0.7), (1, LEFT, 0.9), (2, BELOW, 0.3)),
    _detections((2, LEFT, 0.9), (1, LEFT, 0.6), (5, LEFT, 0.9)),
    _detections((1, LEFT, 0.65), (2, LEFT, 0.8)),
]
"""Class 1, by score: found, wrong, wrong, found, of 3 objects: precisions 1, 1/2, 1/3, 2/4. Class 2: the difficult one
does not count, wrong, found, of 1 object: 0, 1/2. Class 5 is shown nowhere and so is left out."""


@pytest.mark.parametrize("size", [1, 2, 3])
def test_scores_are_sorted_over_all_images_and_classes_are_averaged(size):
    quality = _measured(TRUTHS, FOUND, size)
    # class 1: 1 up to recall 1/3, 1/2 up to 2/3, 0 beyond; eleven points: 0 to .3, .4 to .6, .7 to 1
    eleven = [(4 * 1 + 3 * 1 / 2) / 11, 1 / 2]
    every = [(1 + 1 / 2) / 3, 1 / 2]
    assert quality.map07 == pytest.approx(100 * sum(eleven) / 2, abs=1e-12)
    assert quality.map12 == pytest.approx(100 * sum(every) / 2, abs=1e-12)
    assert quality.images == 3
    assert quality.figures() == {"map07": quality.map07, "map12": quality.map12}


def test_a_class_that_is_never_found_counts_as_zero():
    quality = _measured([_objects((1, LEFT), (3, RIGHT))], [_detections((1, LEFT, 0.5))])
    assert (quality.map07, quality.map12) == (50, 50)


def test_of_equal_scores_the_first_comes_first():
    truths = [_objects((1, LEFT))]
    one, other = (1, LEFT, 0.5), (1, RIGHT, 0.5)
    assert _measured(truths, [_detections(one, other)]).map12 == 100
    assert _measured(truths, [_detections(other, one)]).map12 == 50


def test_images_where_nothing_counts_are_refused():
    with pytest.raises(HawqError, match="2 images show no object that counts"):
        _measured([_objects(), _objects((1, LEFT, "difficult"))], [_detections(), _detections((1, LEFT, 0.5))])


def test_detections_of_too_few_images_are_refused():
    with pytest.raises(ValueError, match="zip"):
        mean_average_precision(lambda images: FOUND[:1], [(torch.zeros(2, 3, 4, 4), TRUTHS[:2])])
