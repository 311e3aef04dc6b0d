"""Train any network, one epoch after the other."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hawq.errors import HawqError
from hawq.evaluation import Accuracy, accuracy
from hawq.train.average import Average
from hawq.train.batch import Batch
from hawq.train.compile import compiled
from hawq.train.config import TrainConfig
from hawq.train.criterion import PLAIN, Criterion
from hawq.train.evaluation_steps import evaluation_steps
from hawq.train.feed import Feed
from hawq.train.groups import parameter_groups
from hawq.train.optimizers import load_moments, moments
from hawq.train.pieces import Pieces
from hawq.train.state import Listener, StepReport, TrainState
from hawq.train.stop import StopRequest

__all__ = ["Forget", "Keeper", "Trainer"]


class Keeper(Protocol):
    """Keep what a training comes to.

    Attributes:
        seconds: between two calls of `last` within an epoch, at most.
    """

    seconds: float

    def best(self, trainer: "Trainer") -> None:
        """Keep the network as it is: no epoch before was as accurate."""

    def last(self, trainer: "Trainer") -> None:
        """Keep the state to go on from."""


class Forget:
    """Keep nothing."""

    seconds = math.inf

    def best(self, trainer: "Trainer") -> None:
        """Pass over it."""

    def last(self, trainer: "Trainer") -> None:
        """Pass over it."""


class Trainer:
    """Train a network; from every state that was kept, training goes on exactly as if it had never stopped.

    For that, nothing depends on what happened in this process: images, their order and whatever is drawn within a piece
    of a step follow from seed, epoch, step and piece, and all the rest is in `state_dict`.

    The processes of `feed.world` share the pieces of every step and the test images; all of them have the same state at
    any time, which is the one a single process comes to.

    Args:
        model: trained in place.
        feed: its images; `feed.config` says how to train.
        criterion: what is minimised.
        suspect: tells what broke, once the loss is not finite.

    Raises:
        UsageError: the processes cannot share a step evenly.
    """

    def __init__(
        self, model: nn.Module, feed: Feed, criterion: Criterion = PLAIN, suspect: Callable[[], str] = lambda: ""
    ) -> None:
        feed.check()
        self.model, self.feed, self._criterion, self._suspect = model, feed, criterion, suspect
        config = feed.config
        self.state = TrainState()
        model.to(memory_format=config.memory_format)
        groups = parameter_groups(model, config.weight_decay, config.groups, config.decay_small)
        self._optimizer = config.optimizer.build(groups)
        self._average = None if config.average is None else Average(model, config.average)
        self._scaler = config.precision.scaler(feed.device)
        self._forward = compiled(model) if config.compile else model
        self._pieces = Pieces(model, feed.world)

    @property
    def config(self) -> TrainConfig:
        """How to train."""
        return self.feed.config

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs to go on, the network itself excepted."""
        return {
            **self.state.to_json(),
            "optimizer": moments(self._optimizer, self.model),
            "average": None if self._average is None else self._average.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, body: dict[str, Any]) -> None:
        """Go on from a state; other keys of a checkpoint are passed over.

        Raises:
            HawqError: the state misses something, or belongs to another network or optimizer.
        """
        missing = self.state_dict().keys() - body.keys()
        if missing:
            raise HawqError(f"the checkpoint does not say {', '.join(sorted(missing))}; train it again")
        self.state = TrainState.from_json(body)
        load_moments(self._optimizer, self.model, body["optimizer"])
        if self._average is not None and body["average"] is not None:
            self._average.load_state_dict(body["average"])
        if body["scaler"]:
            self._scaler.load_state_dict(body["scaler"])

    def run(self, keeper: Keeper, listeners: Sequence[Listener] = ()) -> Accuracy:
        """Train until all epochs are done.

        Ctrl-C and SIGTERM, of any process, are heard between two steps: the state is kept, and what was begun is not
        lost.

        Args:
            keeper: keeps the state after every epoch and in between.
            listeners: hear of every step and epoch.

        Returns:
            The accuracy after the last epoch.

        Raises:
            HawqError: the loss is not finite.
            KeyboardInterrupt: after Ctrl-C or SIGTERM, with the state kept.
        """
        result = None
        with StopRequest() as stop:
            while self.state.epoch < self.config.epochs and not self._is_stale():
                result = self._train_epoch(keeper, listeners, stop)
                keeper.last(self)
        result = result or self.evaluate()
        if self._average is not None:
            self._average.install()
        return result

    def evaluate(self) -> Accuracy:
        """Return the accuracy over the test images, of the averaged weights where there are such."""
        self.model.eval()
        with self._averaged():
            return accuracy(self.model, self.feed.test(), self.feed.world)

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self._average is None else self._average.installed()

    def _is_stale(self) -> bool:
        """Tell whether as many epochs as the patience lasts brought no better top-1."""
        return self.config.patience is not None and self.state.epochs_since_best() >= self.config.patience

    def _train_epoch(self, keeper: Keeper, listeners: Sequence[Listener], stop: StopRequest) -> Accuracy:
        """Train to the end of the epoch under way and return the accuracy there."""
        state, steps, world = self.state, self.feed.steps, self.feed.world
        self.model.train()
        kept = time.monotonic()
        start = state.step - state.epoch * steps
        pieces = self.feed.pieces(state.epoch, start)
        clock = _Clock(state.count)
        for step in range(start, steps):
            rate = self.config.rate(state.step, steps)
            loss = self._step(pieces, self.feed.sizes(step), rate)
            report = StepReport(state.epoch, step + 1, steps, self.config.epochs, loss, rate)
            for listener in listeners:
                listener.step(report)
            if step + 1 in evaluation_steps(steps, self.config.evaluations)[:-1]:
                self._measure(state.epoch + (step + 1) / steps, clock, keeper, listeners)
                self.model.train()
            if any(world.collect(stop.requested)):
                with world.leader_first():  # torchrun ends all processes once one has ended
                    keeper.last(self)
                raise KeyboardInterrupt
            if time.monotonic() - kept > keeper.seconds:
                keeper.last(self)
                kept = time.monotonic()
        result = self._measure(state.epoch + 1, clock, keeper, listeners)
        state.end_epoch()
        return result

    def _measure(self, epochs: float, clock: "_Clock", keeper: Keeper, listeners: Sequence[Listener]) -> Accuracy:
        """Evaluate the network, tell the metrics, and keep it if it is the best; the state is for the caller to keep.

        It is kept last: once it knows of an evaluation, that one's best network and metrics are written.
        """
        state = self.state
        speed = clock.read(state.count)
        result = self.evaluate()
        rate = self.config.rate(max(state.step - 1, 0), self.feed.steps)
        row = {"epoch": epochs, "loss": state.loss / max(state.count, 1), "lr": rate}
        row |= {"top1": result.top1, "top5": result.top5}
        if state.record(row):
            with self._averaged():
                keeper.best(self)
        for listener in listeners:
            listener.epoch(row | speed)
        clock.start(state.count)
        return result

    def _step(self, pieces: Iterator[Batch], sizes: Sequence[int], rate: float) -> float:
        """Take one optimisation step and return its loss.

        Args:
            pieces: of this process; the first belong to the step.
            sizes: images of every piece of the step, on whatever process.
            rate: highest learning rate of a parameter.
        """
        images = sum(sizes)
        first = self.config.seed * 1_000_003 + self.state.step * self.config.accumulate

        def compute(piece: int) -> float:
            batch = next(pieces)
            torch.manual_seed(first + piece)  # of what layers draw: dropout, rounding
            loss = self._loss(batch) * (sizes[piece] / images)
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["multiple"]
        self._optimizer.zero_grad(set_to_none=True)
        value = self._pieces.run(len(sizes), compute)
        if self.config.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update()
        self.state.add(value, images)
        return value

    def _loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of images that are computed at once.

        Raises:
            HawqError: it is not finite.
        """
        trouble = ""
        try:
            with self.config.precision.autocast(self.feed.device):
                logits = self._forward(batch.images)
            loss = self._criterion(batch.images, logits.float(), batch.targets(logits.shape[1]))
            if not math.isfinite(float(loss.detach())):
                trouble = f"the loss is {float(loss.detach())}"
        except HawqError as error:  # a quantizer whose range broke
            trouble = str(error)
        if trouble:
            raise HawqError(
                f"{trouble}, at epoch {self.state.epoch}, step {self.state.step}{self._suspect()}; the last "
                f"checkpoint is kept: lower --lr (now {self.config.lr}) and use --resume"
            )
        return loss


class _Clock:
    """Measure how fast images are trained on, evaluations left out."""

    def __init__(self, images: int) -> None:
        self.start(images)

    def start(self, images: int) -> None:
        """Begin to count behind these images."""
        self._began, self._images = time.monotonic(), images

    def read(self, images: int) -> dict[str, float]:
        """Return the seconds since the start, and the images trained on in each."""
        seconds = time.monotonic() - self._began
        speed = (images - self._images) / max(seconds, 1e-9)
        return {"seconds": round(seconds, 3), "images_per_second": round(speed, 1)}
