"""Evaluations lie evenly over an epoch, and one at its end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hawq.errors import UsageError
from hawq.train.evaluation_steps import evaluation_steps


@pytest.mark.parametrize(
    ("steps", "times", "wanted"),
    [
        (100, -1, (100,)),
        (100, 1, (100,)),
        (100, 4, (25, 50, 75, 100)),
        (10, 3, (4, 7, 10)),
        (2, 5, (1, 2)),
        (1, 1, (1,)),
    ],
)
def test_evaluations_lie_evenly(steps, times, wanted):
    assert evaluation_steps(steps, times) == wanted


@given(steps=st.integers(1, 2000), times=st.integers(1, 2000))
def test_there_are_as_many_as_fit_and_gaps_differ_by_one_step(steps, times):
    found = evaluation_steps(steps, times)
    assert len(found) == min(steps, times)
    gaps = [after - before for before, after in zip((0, *found), found, strict=False)]
    assert max(gaps) - min(gaps) <= 1
    assert found[-1] == steps


@pytest.mark.parametrize("times", [0, -2])
def test_other_numbers_are_refused(times):
    with pytest.raises(UsageError, match=f"--evaluate-times {times} is not allowed"):
        evaluation_steps(10, times)
