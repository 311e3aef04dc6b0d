"""Move the learning rate over a training: each schedule is a factor of the highest rate."""

import math
from dataclasses import dataclass
from typing import Protocol

from hawq.errors import UsageError
from hawq.train.notation import Choices

__all__ = ["SCHEDULES", "Constant", "Cosine", "Exponential", "OneCycle", "Polynomial", "Restarts", "Schedule", "Step"]


class Schedule(Protocol):
    """Give the factor of the highest learning rate."""

    def factor(self, position: float, total: float) -> float:
        """Return the factor, 0..1.

        Args:
            position: epochs done, with the fraction of the one under way, 0 <= position < total.
            total: epochs of the training.
        """


SCHEDULES: Choices[Schedule] = Choices("learning rate schedule")
"""Every schedule by name."""


@SCHEDULES.register("step")
@dataclass(frozen=True)
class Step:
    """gamma^floor(position / period): HAWQ's times 0.1 every 30 epochs (2011.10680).

    Attributes:
        period: epochs between two falls.
        gamma: of a fall.
    """

    period: float = 30.0
    gamma: float = 0.1

    def __post_init__(self) -> None:
        """Check the period."""
        _positive(self, "period", self.period)

    def factor(self, position: float, total: float) -> float:
        """Return the factor."""
        return float(self.gamma ** (position // self.period))


@SCHEDULES.register("cosine")
@dataclass(frozen=True)
class Cosine:
    """floor + (1 - floor) (1 + cos(pi position / total)) / 2 (1608.03983, without restarts).

    Attributes:
        floor: at the end.
    """

    floor: float = 0.0

    def factor(self, position: float, total: float) -> float:
        """Return the factor."""
        return _half_cosine(position / total, self.floor)


@SCHEDULES.register("polynomial")
@dataclass(frozen=True)
class Polynomial:
    """floor + (1 - floor) (1 - position / total)^power (1506.04579); power 1 is a straight line.

    Attributes:
        power: above 1 it falls fast first.
        floor: at the end.
    """

    power: float = 1.0
    floor: float = 0.0

    def factor(self, position: float, total: float) -> float:
        """Return the factor."""
        return self.floor + (1 - self.floor) * float((1 - position / total) ** self.power)


@SCHEDULES.register("sgdr")
@dataclass(frozen=True)
class Restarts:
    """Half cosines one after the other, each `growth` times as long as the one before (SGDR, 1608.03983).

    Attributes:
        period: epochs of the first one.
        growth: of the period, 1 or more.
        floor: at the end of each.
    """

    period: float = 10.0
    growth: float = 2.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        """Check period and growth.

        Raises:
            UsageError: growth is below 1.
        """
        _positive(self, "period", self.period)
        if self.growth < 1:
            raise UsageError(f"sgdr with growth {self.growth:g}: give 1 or more")

    def factor(self, position: float, total: float) -> float:
        """Return the factor."""
        period = self.period
        while position >= period:
            position, period = position - period, period * self.growth
        return _half_cosine(position / period, self.floor)


@SCHEDULES.register("exponential")
@dataclass(frozen=True)
class Exponential:
    """gamma^position.

    Attributes:
        gamma: of an epoch.
    """

    gamma: float = 0.95

    def factor(self, position: float, total: float) -> float:
        """Return the factor."""
        return float(self.gamma**position)


@SCHEDULES.register("one-cycle")
@dataclass(frozen=True)
class OneCycle:
    """Up along a line over the first part of the training, then down to zero along half a cosine (1708.07120).

    Attributes:
        rise: that part, between 0 and 1.
    """

    rise: float = 0.3

    def __post_init__(self) -> None:
        """Check the part.

        Raises:
            UsageError: it does not lie between 0 and 1.
        """
        if not 0 < self.rise < 1:
            raise UsageError(f"one-cycle with rise {self.rise:g}: give a part of the training between 0 and 1")

    def factor(self, position: float, total: float) -> float:
        """Return the factor."""
        done = position / total
        return done / self.rise if done < self.rise else _half_cosine((done - self.rise) / (1 - self.rise), 0.0)


@SCHEDULES.register("constant")
@dataclass(frozen=True)
class Constant:
    """The highest rate all the time."""

    def factor(self, position: float, total: float) -> float:
        """Return 1."""
        return 1.0


def _half_cosine(done: float, floor: float) -> float:
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def _positive(schedule: Schedule, name: str, value: float) -> None:
    if not value > 0:
        raise UsageError(f"{SCHEDULES.write(schedule)}: {name} must be above 0")
