"""mIOU of hand-made masks; every expected figure is counted by hand, pixel by pixel."""

import pytest
import torch
import torch.nn.functional as F

from hawq.errors import HawqError
from hawq.evaluation import mean_iou

TRUTH = torch.tensor([[[0, 0, 1], [1, 1, 255]], [[1, 1, 2], [2, 0, 0]]])
FOUND = torch.tensor([[[0, 1, 1], [1, 0, 2]], [[1, 2, 2], [2, 0, 0]]])
"""Classes: 3 / 5, 3 / 6 and 2 / 3 where the pixel of 255 does not count, its prediction of class 2 included."""


def _logits(classes, count=4):
    return F.one_hot(classes, count).permute(0, 3, 1, 2).float()


def _measured(found, truth=TRUTH, size=2, classes=4):
    """Return the mIOU of predictions, shown in batches."""
    logits = iter(_logits(found, classes).split(size))
    batches = [(torch.zeros(len(masks), 3, 2, 3), masks) for masks in truth.split(size)]
    return mean_iou(lambda images: next(logits), batches, classes)


def test_ignored_pixels_and_classes_absent_from_both_are_left_out():
    quality = _measured(FOUND)
    assert quality.miou == pytest.approx(100 * (3 / 5 + 3 / 6 + 2 / 3) / 3, rel=1e-6)  # float32 of torchmetrics
    assert quality.images == 2
    assert quality.figures() == {"miou": quality.miou}


def test_a_class_that_is_only_predicted_counts_as_zero():
    found = FOUND.clone()
    found[1, 1, 1] = 3  # was right as class 0: 2 / 5 is left of it
    assert _measured(found).miou == pytest.approx(100 * (2 / 5 + 3 / 6 + 2 / 3 + 0) / 4, rel=1e-6)


def test_a_class_that_is_never_found_counts_as_zero():
    found = torch.where(FOUND == 2, 0, FOUND)
    # shown 0: 4 pixels, predicted 0: 2 + 2 + 3 = 7, both: 3, union 8; class 1 as before; class 2: 0 of 2
    assert _measured(found).miou == pytest.approx(100 * (3 / 8 + 3 / 6 + 0) / 3, rel=1e-6)


def test_pixels_are_summed_over_all_images_not_averaged_by_image():
    assert _measured(FOUND, size=1) == _measured(FOUND, size=2)


def test_small_logits_are_enlarged_bilinearly_without_aligned_corners():
    # class 0 rises 0, 4 -> 0, 1, 3, 4 over four pixels; class 1 is 0.5 everywhere; nearest would give 1, 1, 0, 0
    logits = torch.tensor([[[[0.0, 4.0]], [[0.5, 0.5]]]])
    batches = [(torch.zeros(1, 3, 1, 4), torch.tensor([[[1, 0, 0, 0]]]))]
    assert mean_iou(lambda images: logits, batches, 2).miou == 100


def test_masks_that_count_nowhere_are_refused():
    with pytest.raises(HawqError, match="no pixel of 2 masks counts"):
        _measured(FOUND, torch.full_like(TRUTH, 255))


@pytest.mark.parametrize("shape", [(2, 4), (2, 5, 2, 3), (1, 4, 2, 3)])
def test_logits_of_another_shape_are_refused(shape):
    with pytest.raises(HawqError, match=r"segmentation needs \(2, 4, height, width\)"):
        mean_iou(lambda images: torch.zeros(shape), [(torch.zeros(2, 3, 2, 3), TRUTH)], 4)
