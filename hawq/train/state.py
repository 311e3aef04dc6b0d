"""Hold what a training has done, and report it."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

__all__ = ["Listener", "StepReport", "TrainState"]


@dataclass
class TrainState:
    """Count what has been done.

    Attributes:
        epoch: epochs done.
        step: optimisation steps done, over all epochs.
        best: highest top-1 so far, percent.
        history: a row for every evaluation; its epoch is a fraction within one, whole at the end.
        loss: sum of the losses of all images of the epoch under way.
        count: those images.
    """

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)
    loss: float = 0.0
    count: int = 0

    def add(self, loss: float, images: int) -> None:
        """Count a step with the mean loss of its images."""
        self.step += 1
        self.loss, self.count = self.loss + loss * images, self.count + images

    def record(self, row: dict[str, float]) -> bool:
        """Keep the metrics of an evaluation; tell whether its top-1 is the highest so far."""
        self.history.append(row)
        is_best = row["top1"] > self.best
        self.best = max(self.best, row["top1"])
        return is_best

    def end_epoch(self) -> None:
        """Count an epoch."""
        self.epoch += 1
        self.loss, self.count = 0.0, 0

    def epochs_since_best(self) -> float:
        """Return the epochs that brought no better top-1, up to the last evaluation."""
        if not self.history:
            return 0.0
        best = max(self.history, key=lambda row: row["top1"])  # the first of equals
        return self.history[-1]["epoch"] - best["epoch"]

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for checkpoints."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "TrainState":
        """Return the state that a checkpoint holds, among other things."""
        return cls(**{item.name: body[item.name] for item in fields(cls)})


@dataclass(frozen=True)
class StepReport:
    """Say how one optimisation step went.

    Attributes:
        epoch: epochs done before.
        step: steps of this epoch done, this one included.
        steps: of an epoch.
        epochs: of the training.
        loss: mean over the images of the step.
        lr: highest learning rate of a parameter.
    """

    epoch: int
    step: int
    steps: int
    epochs: int
    loss: float
    lr: float

    @property
    def done(self) -> int:
        """Steps of the training done."""
        return self.epoch * self.steps + self.step

    @property
    def total(self) -> int:
        """Steps of the training."""
        return self.epochs * self.steps


class Listener(Protocol):
    """Hear how training goes."""

    def step(self, report: StepReport) -> None:
        """Hear of one optimisation step."""

    def epoch(self, row: dict[str, float]) -> None:
        """Hear the metrics of an evaluation: epoch, loss, lr, top1, top5, seconds, images_per_second.

        `epoch` counts the epochs done, with a fraction within one.
        """
