"""Say how to train."""

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from hawq.errors import UsageError
from hawq.train.schedules import SCHEDULES, Schedule, Step

__all__ = ["Interval", "TrainConfig"]


class Interval(Enum):
    """How often the learning rate moves: with every optimisation step, or with every epoch."""

    STEP = "step"
    EPOCH = "epoch"


@dataclass(frozen=True)
class TrainConfig:
    """Say how to train.

    Attributes:
        epochs: passes over the training set.
        lr: highest learning rate.
        momentum: of SGD.
        weight_decay: of every parameter.
        batch_size: images that are computed at once.
        schedule: of the learning rate, behind the warm-up.
        warmup: epochs over which the learning rate rises to the highest along a line.
        interval: at which the learning rate moves.
        seed: of the order of images, of augmentation and of whatever else is random.
        clip_norm: largest norm of the gradient of all parameters together; a longer one is shortened. None: no limit.

    Raises:
        UsageError: a number is out of its range.
    """

    epochs: int
    lr: float
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 128
    schedule: Schedule = field(default_factory=Step)
    warmup: float = 0.0
    interval: Interval = Interval.STEP
    seed: int = 0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        """Check what the options themselves cannot."""
        if self.epochs and not 0 <= self.warmup < self.epochs:
            raise UsageError(
                f"a warm-up of {self.warmup:g} epochs in a training of {self.epochs}: give at least 0 and less than "
                "the training, or raise --epochs"
            )

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step.

        Args:
            step: steps done before, over all epochs.
            steps: of an epoch.
        """
        tick = 1 / steps if self.interval is Interval.STEP else 1.0
        position = step / steps if self.interval is Interval.STEP else float(step // steps)
        if position < self.warmup:  # the first step is not wasted on a rate of 0 (1706.02677)
            return self.lr * min(1.0, (position + tick) / self.warmup)
        return self.lr * self.schedule.factor(position - self.warmup, self.epochs - self.warmup)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values, for checkpoints."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**found, "schedule": SCHEDULES.write(self.schedule), "interval": self.interval.value}
