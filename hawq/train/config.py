"""Say how to train."""

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

import torch

from hawq.errors import UsageError
from hawq.train.evaluation_steps import evaluation_steps
from hawq.train.groups import Group
from hawq.train.mixup import Mixup
from hawq.train.optimizers import OPTIMIZERS, SGD, Optimizer
from hawq.train.precision import Precision
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
        optimizer: that takes the steps.
        weight_decay: of every parameter of which no group says anything else.
        groups: parameters with their own learning rate or weight decay.
        decay_small: whether weight decay holds for 1-d tensors and the weights of depthwise convolutions too.
        batch_size: images that are computed at once.
        accumulate: batches whose gradients make one step.
        schedule: of the learning rate, behind the warm-up.
        warmup: epochs over which the learning rate rises to the highest along a line.
        interval: at which the learning rate moves.
        seed: of the order of images, of augmentation and of whatever else is random.
        clip_norm: largest norm of the gradient of all parameters together; a longer one is shortened. None: no limit.
        mixup: images with one another.
        average: decay of the average of the weights, which is then what is evaluated and kept; None: no average.
        evaluations: of every epoch, evenly spread, the last one at its end; -1 stands for 1.
        patience: epochs without a better top-1 after which training ends; None: never.
        precision: of the float layers.
        channels_last: keep images and weights in the order (N, H, W, C).
        compile: the forward and backward pass.

    Raises:
        UsageError: a number is out of its range.
    """

    epochs: int
    lr: float
    optimizer: Optimizer = field(default_factory=SGD)
    weight_decay: float = 1e-4
    groups: tuple[Group, ...] = ()
    decay_small: bool = True
    batch_size: int = 128
    accumulate: int = 1
    schedule: Schedule = field(default_factory=Step)
    warmup: float = 0.0
    interval: Interval = Interval.STEP
    seed: int = 0
    clip_norm: float | None = None
    mixup: Mixup | None = None
    average: float | None = None
    evaluations: int = 1
    patience: int | None = None
    precision: Precision = Precision.FLOAT32
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Check what the options themselves cannot."""
        if self.epochs and not 0 <= self.warmup < self.epochs:
            raise UsageError(
                f"a warm-up of {self.warmup:g} epochs in a training of {self.epochs}: give at least 0 and less than "
                "the training, or raise --epochs"
            )
        evaluation_steps(1, self.evaluations)
        if self.average is not None and not 0 <= self.average < 1:
            raise UsageError(f"an average with decay {self.average:g}: give at least 0 and less than 1, such as 0.999")

    @property
    def step_images(self) -> int:
        """Images of an optimisation step."""
        return self.batch_size * self.accumulate

    @property
    def memory_format(self) -> torch.memory_format:
        """Order of the elements of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

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
        return {
            **found,
            "optimizer": OPTIMIZERS.write(self.optimizer),
            "groups": [str(group) for group in self.groups],
            "schedule": SCHEDULES.write(self.schedule),
            "interval": self.interval.value,
            "mixup": None if self.mixup is None else self.mixup.alpha,
            "precision": self.precision.value,
        }
