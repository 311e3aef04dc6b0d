"""Train any network, one epoch after the other."""

import csv
import io
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hawq.errors import HawqError
from hawq.files import write_atomically
from hawq.train.criterion import PLAIN, Criterion
from hawq.train.evaluate import Accuracy
from hawq.train.stop import StopRequest

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
        clip_norm: largest norm of the gradient of all parameters together; a longer one is shortened. None: no limit.
    """

    epochs: int
    lr: float
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 128
    schedule: Schedule = Schedule.STEP
    seed: int = 0
    clip_norm: float | None = None


@dataclass
class TrainState:
    """What has been done, and what is needed to go on: everything a checkpoint holds.

    Attributes:
        optimizer: with its momentum.
        epoch: epochs done.
        step: steps done, over all epochs.
        best: highest top-1 so far, percent.
        history: a row for every epoch done.
        loss: sum of the losses of all images of the epoch under way.
        count: those images.
    """

    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    best: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)
    loss: float = 0.0
    count: int = 0

    def begin_epoch(self) -> None:
        """Forget the sums of the epoch before."""
        self.loss, self.count = 0.0, 0


class Progress(Protocol):
    """Hear how training goes."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Hear of one optimisation step."""

    def epoch(self, row: dict[str, float]) -> None:
        """Hear the metrics of an epoch."""


def fit(
    model: nn.Module,
    batches: Callable[[int, int], Iterable[tuple[Tensor, Tensor]]],
    steps_per_epoch: int,
    evaluate: Callable[[], Accuracy],
    config: TrainConfig,
    state: TrainState,
    progress: Progress,
    save: Callable[[TrainState, bool], Any],
    seconds: float = 300.0,
    suspect: Callable[[], str] = lambda: "",
    criterion: Criterion = PLAIN,
) -> Accuracy:
    """Train until `config.epochs` epochs are done.

    Ctrl-C and SIGTERM are heard between two steps: the state is saved, and what was begun is not lost. From any saved
    state training goes on exactly as if it had never stopped: the order of images and their variation depend on
    seed and epoch alone.

    Args:
        model: trained in place.
        batches: epoch, step -> the batches of images and labels of the epoch, from that step of it on.
        steps_per_epoch: number of batches of an epoch.
        evaluate: measures the model; called with the model in evaluation mode after every epoch.
        config: how to train.
        state: where to begin; moved along.
        progress: hears of every step and epoch.
        save: called with the state and whether its accuracy is the best so far, after every epoch and in between.
        seconds: between two saves within an epoch, at most.
        suspect: tells what broke, once the loss is not finite.
        criterion: what is minimised.

    Returns:
        The accuracy after the last epoch.

    Raises:
        HawqError: the loss is not finite.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with the state saved.
    """
    result = None
    saved = time.monotonic()
    with StopRequest() as stop:
        while state.epoch < config.epochs:
            model.train()
            for images, labels in batches(state.epoch, state.step - state.epoch * steps_per_epoch):
                value = _step(model, images, labels, steps_per_epoch, config, state, suspect, criterion)
                done = state.step - state.epoch * steps_per_epoch
                progress.step(state.epoch, done, steps_per_epoch, value)
                if stop.requested or time.monotonic() - saved > seconds:
                    save(state, False)
                    saved = time.monotonic()
                if stop.requested:
                    raise KeyboardInterrupt
            row = {"epoch": state.epoch + 1, "loss": state.loss / max(state.count, 1)}
            state.epoch += 1
            state.begin_epoch()
            model.eval()
            result = evaluate()
            is_best = result.top1 > state.best
            state.best = max(state.best, result.top1)
            state.history.append({**row, "top1": result.top1, "top5": result.top5})
            progress.epoch(state.history[-1])
            save(state, is_best)
            saved = time.monotonic()
    model.eval()
    return result if result is not None else evaluate()


def _step(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    steps_per_epoch: int,
    config: TrainConfig,
    state: TrainState,
    suspect: Callable[[], str],
    criterion: Criterion,
) -> float:
    """Take one optimisation step and return its loss."""
    fraction = state.step / max(1, steps_per_epoch * config.epochs)
    for group in state.optimizer.param_groups:
        group["lr"] = config.lr * config.schedule.factor(state.epoch, fraction)
    trouble = ""
    try:
        loss = criterion(images, model(images), labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            trouble = f"the loss is {value}"
    except HawqError as error:  # a quantizer whose range broke
        trouble = str(error)
    if trouble:
        raise HawqError(
            f"{trouble}, at epoch {state.epoch}, step {state.step}{suspect()}; the last checkpoint is kept: "
            f"lower --lr (now {config.lr}) and use --resume"
        )
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if config.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    state.optimizer.step()
    state.step += 1
    state.loss, state.count = state.loss + value * len(labels), state.count + len(labels)
    return value


def write_metrics(path: Path, history: list[dict[str, float]]) -> None:
    """Write one CSV row per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=["epoch", "loss", "top1", "top5"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, lambda temporary: temporary.write_text(text.getvalue()))
