"""Which metrics go with masks and boxes."""

import pytest
import torch
from small_graph import batches, build

from hawq.errors import UsageError
from hawq.sensitivity import METRICS
from hawq.sensitivity.perturbation import prepare
from hawq.sensitivity.registry import check_task
from hawq.task import Task


def _reads_labels(name):
    """Tell whether a metric fails where there are none."""
    (images, _), *_ = batches(2)
    try:
        METRICS[name](prepare(build(), (4, 8))).sample(images, None, torch.Generator().manual_seed(0))
    except (TypeError, AttributeError):
        return True
    return False


def test_some_metrics_read_labels_and_some_do_not():
    assert {_reads_labels(name) for name in METRICS} == {True, False}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_that_read_labels_are_refused_for_masks(name):
    check_task(name, Task.CLASSIFICATION)
    if _reads_labels(name):
        with pytest.raises(UsageError, match=rf"metric {name} needs a label an image.*jacobian"):
            check_task(name, Task.SEGMENTATION)
    else:
        check_task(name, Task.SEGMENTATION)


@pytest.mark.parametrize("name", METRICS)
def test_detectors_are_refused(name):
    with pytest.raises(UsageError, match="name a scheme, such as uniform8"):
        check_task(name, Task.DETECTION)
