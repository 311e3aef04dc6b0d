"""Average precision and matching of one class, on precision-recall curves and boxes that are worked out by hand."""

import pytest
import torch

from hawq.boxes import Objects
from hawq.evaluation.average_precision import Interpolation, average_precision, match

VOC07, VOC12 = Interpolation.VOC07, Interpolation.VOC12


def _hits(text):
    return torch.tensor([each == "+" for each in text], dtype=torch.bool)


@pytest.mark.parametrize(
    ("hits", "objects", "eleven", "every"),
    [
        # precisions 1, 1/2, 2/3, 3/4, 3/5 at recalls 1/5, 1/5, 2/5, 3/5, 3/5; highest from each recall on: 1 up to 1/5,
        # 3/4 up to 3/5, 0 beyond. Eleven points: 0, .1, .2 | .3, .4, .5, .6 | .7 to 1
        ("+-++-", 5, (3 * 1 + 4 * 3 / 4) / 11, (1 + 3 / 4 + 3 / 4) / 5),
        # precisions 0, 1/2, 1/3, 1/2 at recalls 0, 1/2, 1/2, 1: 1/2 everywhere
        ("-+-+", 2, 1 / 2, 1 / 2),
        ("++", 2, 1, 1),
        ("---", 3, 0, 0),
        ("", 3, 0, 0),
        # recall 3/10 is reached exactly: points 0, .1, .2, .3
        ("+++", 10, 4 / 11, 3 / 10),
        # recall 1/3 reaches the points 0, .1, .2, .3, not .4
        ("+", 3, 4 / 11, 1 / 3),
        # a late hit lifts nothing before it: 1 at recall 1/2, 2/4 at recall 1; six points at most 1/2, five above
        ("+--+", 2, (6 * 1 + 5 * 1 / 2) / 11, (1 + 1 / 2) / 2),
    ],
)
def test_average_precision_by_hand(hits, objects, eleven, every):
    assert average_precision(_hits(hits), objects, VOC07) == pytest.approx(eleven, abs=1e-15)
    assert average_precision(_hits(hits), objects, VOC12) == pytest.approx(every, abs=1e-15)


A, B, FAR = [0, 0, 10, 10], [0, 4, 10, 14], [50, 50, 60, 60]


def _match(boxes, truth, difficult=()):
    flags = torch.tensor([index in difficult for index in range(len(truth))], dtype=torch.bool)
    objects = Objects(torch.tensor(truth).float().view(-1, 4), torch.ones(len(truth), dtype=torch.int64), flags)
    hits, counts = match(torch.tensor(boxes).float().view(-1, 4), objects)
    return hits.tolist(), counts.tolist()


def test_half_of_the_union_is_enough():
    assert _match([[0, 0, 10, 5], FAR], [A]) == ([True, False], [True, True])  # 50 / 100
    assert _match([[0, 0, 10, 4.9]], [A]) == ([False], [True])


def test_an_object_is_found_once_by_the_surest():
    assert _match([[0, 0, 10, 9], A], [A]) == ([True, False], [True, True])


def test_a_taken_object_is_not_exchanged_for_another_one():
    # the second box overlaps A by 90 / 110 and B, which is free, by 70 / 130: enough, but A is nearer
    assert _match([A, [0, 1, 10, 11]], [A, B]) == ([True, False], [True, True])


def test_difficult_objects_neither_count_nor_cost():
    assert _match([A, A, FAR], [A], difficult=[0]) == ([False, False, False], [False, False, True])
    assert _match([A, B], [A, B], difficult=[0]) == ([False, True], [False, True])


def test_nothing_shown_or_nothing_found():
    assert _match([A, B], []) == ([False, False], [True, True])
    assert _match([], [A]) == ([], [])
