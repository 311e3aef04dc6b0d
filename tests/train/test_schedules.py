"""Learning rates at their ends, along the way, and what a training makes of them."""

import pytest

from hawq.errors import UsageError
from hawq.train.config import Interval, TrainConfig
from hawq.train.schedules import SCHEDULES


@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("step", {0: 1, 29.9: 1, 30: 0.1, 60: 0.01}),
        ("step:period=20,gamma=0.5", {19: 1, 20: 0.5, 40: 0.25}),
        ("cosine", {0: 1, 45: 0.5, 90: 0}),
        ("cosine:floor=0.2", {0: 1, 45: 0.6, 90: 0.2}),
        ("polynomial", {0: 1, 45: 0.5, 90: 0}),
        ("polynomial:power=2,floor=0.1", {0: 1, 45: 0.325, 90: 0.1}),
        ("sgdr", {0: 1, 5: 0.5, 10: 1, 20: 0.5, 30: 1, 50: 0.5, 70: 1}),
        ("sgdr:period=8,growth=1,floor=0.5", {4: 0.75, 8: 1, 84: 0.75}),
        ("exponential:gamma=0.9", {0: 1, 1: 0.9, 2: 0.81}),
        ("one-cycle", {0: 0, 13.5: 0.5, 27: 1, 58.5: 0.5, 90: 0}),
        ("constant", {0: 1, 89: 1}),
    ],
)
def test_factors(text, factors):
    schedule = SCHEDULES.read(text)
    assert {at: schedule.factor(at, 90) for at in factors} == pytest.approx(factors)
    assert SCHEDULES.read(SCHEDULES.write(schedule)) == schedule


def test_every_schedule_is_written_and_read():
    assert all(SCHEDULES.read(SCHEDULES.write(kind())) == kind() for kind in SCHEDULES.kinds.values())


def test_a_warm_up_rises_to_the_rate_and_the_schedule_begins_behind_it():
    config = TrainConfig(epochs=6, lr=2.0, warmup=2, schedule=SCHEDULES.read("cosine"))
    rates = [config.rate(step, 4) for step in range(24)]
    assert rates[:8] == pytest.approx([0.25 * n for n in range(1, 9)])
    assert (rates[8], rates[16]) == pytest.approx((2.0, 1.0))
    by_epoch = TrainConfig(epochs=6, lr=2.0, warmup=2, schedule=SCHEDULES.read("cosine"), interval=Interval.EPOCH)
    held = [by_epoch.rate(step, 4) for step in range(24)]
    assert held[:4] == [1.0] * 4
    assert held[4:8] == [2.0] * 4
    assert held[8::4] == pytest.approx(rates[8::4])
    assert all(held[step] == held[step - step % 4] for step in range(24))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin", "unknown; allowed are step:period=30,gamma=0.1; cosine:floor=0"),
        ("cosine:power=2", "'power=2' is no setting; allowed are floor"),
        ("step:period=fast", "give a number"),
        ("step:period=0", "period must be above 0"),
        ("sgdr:growth=0.5", "give 1 or more"),
        ("one-cycle:rise=1", "between 0 and 1"),
    ],
)
def test_wrong_schedules_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        SCHEDULES.read(text)


def test_a_warm_up_as_long_as_the_training_is_refused():
    with pytest.raises(UsageError, match="raise --epochs"):
        TrainConfig(epochs=2, lr=0.1, warmup=2)
