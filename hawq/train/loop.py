"""Train any network, one epoch after the other."""

import csv
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hawq.errors import HawqError
from hawq.files import write_atomically
from hawq.train.evaluate import Accuracy

__all__ = ["Progress", "Schedule", "TrainConfig", "TrainState", "fit", "write_metrics"]


class Schedule(Enum):
    """How the learning rate falls.

    STEP: times 0.1 every 30 epochs (2011.10680). COSINE: to zero along half a cosine, per step (1608.03983).
    ONE_CYCLE: up over the first 30% of the steps, then down along a cosine (1708.07120).
    """

    STEP = "step"
    COSINE = "cosine"
    ONE_CYCLE = "one-cycle"

    def factor(self, epoch: int, fraction: float) -> float:
        """Return what the learning rate is multiplied by, in `epoch`, at `fraction` (0..1) of all steps."""
        if self is Schedule.STEP:
            return float(0.1 ** (epoch // 30))
        if self is Schedule.COSINE:
            return 0.5 * (1 + math.cos(math.pi * fraction))
        warm = 0.3
        return fraction / warm if fraction < warm else 0.5 * (1 + math.cos(math.pi * (fraction - warm) / (1 - warm)))


@dataclass(frozen=True)
class TrainConfig:
    """Say how to train.

    Attributes:
        epochs: passes over the training set.
        lr: highest learning rate.
        momentum: of SGD.
        weight_decay: of SGD.
        batch_size: images per step.
        schedule: of the learning rate.
        seed: of the order of images and of augmentation.
    """

    epochs: int
    lr: float
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 128
    schedule: Schedule = Schedule.STEP
    seed: int = 0


@dataclass
class TrainState:
    """What has been done, and what is needed to go on: everything a checkpoint holds."""

    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    best: float = -1.0
    history: list[dict[str, float]] | None = None


class Progress(Protocol):
    """Hear how training goes."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Hear of one optimisation step."""

    def epoch(self, row: dict[str, float]) -> None:
        """Hear the metrics of an epoch."""


def fit(
    model: nn.Module,
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    steps_per_epoch: int,
    evaluate: Callable[[], Accuracy],
    config: TrainConfig,
    state: TrainState,
    progress: Progress,
    save: Callable[[TrainState, bool], Any],
) -> Accuracy:
    """Train until `config.epochs` epochs are done.

    Args:
        model: trained in place with cross entropy.
        batches: epoch -> its batches of images and labels.
        steps_per_epoch: number of batches of an epoch.
        evaluate: measures the model; called with the model in evaluation mode after every epoch.
        config: how to train.
        state: where to begin; moved along.
        progress: hears of every step and epoch.
        save: called after every epoch with the state and whether its accuracy is the best so far.

    Returns:
        The accuracy after the last epoch.

    Raises:
        HawqError: the loss is not finite.
    """
    result = None
    state.history = state.history or []
    while state.epoch < config.epochs:
        model.train()
        total = count = 0.0
        for images, labels in batches(state.epoch):
            fraction = state.step / max(1, steps_per_epoch * config.epochs)
            for group in state.optimizer.param_groups:
                group["lr"] = config.lr * config.schedule.factor(state.epoch, fraction)
            loss = F.cross_entropy(model(images), labels)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise HawqError(
                    f"the loss is {value} at epoch {state.epoch}, step {state.step}; the checkpoint of the last epoch "
                    f"is kept: lower --lr (now {config.lr}) and use --resume"
                )
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            state.optimizer.step()
            state.step += 1
            total, count = total + value * len(labels), count + len(labels)
            progress.step(state.epoch, state.step % steps_per_epoch or steps_per_epoch, steps_per_epoch, value)
        state.epoch += 1
        model.eval()
        result = evaluate()
        is_best = result.top1 > state.best
        state.best = max(state.best, result.top1)
        row = {"epoch": state.epoch, "loss": total / max(count, 1), "top1": result.top1, "top5": result.top5}
        state.history.append(row)
        progress.epoch(row)
        save(state, is_best)
    model.eval()
    return result if result is not None else evaluate()


def write_metrics(path: Path, history: list[dict[str, float]]) -> None:
    """Write one CSV row per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=["epoch", "loss", "top1", "top5"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, lambda temporary: temporary.write_text(text.getvalue()))
