"""Train any network, one epoch after the other."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hawq.errors import HawqError
from hawq.train.config import TrainConfig
from hawq.train.criterion import PLAIN, Criterion
from hawq.train.evaluate import Accuracy, accuracy
from hawq.train.feed import Batch, Feed
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

    For that, nothing depends on what happened in this process: images, their order and whatever is drawn within a step
    follow from seed, epoch and step, and all the rest is in `state_dict`.

    Args:
        model: trained in place.
        feed: its images; `feed.config` says how to train.
        criterion: what is minimised.
        suspect: tells what broke, once the loss is not finite.
    """

    def __init__(
        self, model: nn.Module, feed: Feed, criterion: Criterion = PLAIN, suspect: Callable[[], str] = lambda: ""
    ) -> None:
        self.model, self.feed, self._criterion, self._suspect = model, feed, criterion, suspect
        config = feed.config
        self.state = TrainState()
        self._optimizer = torch.optim.SGD(
            model.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay
        )

    @property
    def config(self) -> TrainConfig:
        """How to train."""
        return self.feed.config

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs to go on, the network itself excepted."""
        return {**self.state.to_json(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, body: dict[str, Any]) -> None:
        """Go on from a state; other keys of a checkpoint are passed over."""
        self.state = TrainState.from_json(body)
        self._optimizer.load_state_dict(body["optimizer"])

    def run(self, keeper: Keeper, listeners: Sequence[Listener] = ()) -> Accuracy:
        """Train until all epochs are done.

        Ctrl-C and SIGTERM are heard between two steps: the state is kept, and what was begun is not lost.

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
            while self.state.epoch < self.config.epochs:
                began, done = time.monotonic(), self.state.count
                row = self._train_epoch(keeper, listeners, stop)
                seconds, images = time.monotonic() - began, self.state.count - done
                result = self.evaluate()
                row |= {"top1": result.top1, "top5": result.top5}
                is_best = self.state.end_epoch(row)
                # the state is kept last: once it knows of an epoch, that epoch's best network and metrics are written
                if is_best:
                    keeper.best(self)
                speed = {"seconds": round(seconds, 3), "images_per_second": round(images / max(seconds, 1e-9), 1)}
                for listener in listeners:
                    listener.epoch(row | speed)
                keeper.last(self)
        return result if result is not None else self.evaluate()

    def evaluate(self) -> Accuracy:
        """Return the accuracy of the network over the test images."""
        self.model.eval()
        return accuracy(self.model, self.feed.test())

    def _train_epoch(self, keeper: Keeper, listeners: Sequence[Listener], stop: StopRequest) -> dict[str, float]:
        """Train to the end of the epoch under way and return its loss and last learning rate."""
        state, steps = self.state, self.feed.steps
        self.model.train()
        kept = time.monotonic()
        for batch in self.feed.epoch(state.epoch, state.step - state.epoch * steps):
            rate = self.config.rate(state.step, steps)
            loss = self._step(batch, rate)
            report = StepReport(state.epoch, state.step - state.epoch * steps, steps, self.config.epochs, loss, rate)
            for listener in listeners:
                listener.step(report)
            if stop.requested or time.monotonic() - kept > keeper.seconds:
                keeper.last(self)
                kept = time.monotonic()
            if stop.requested:
                raise KeyboardInterrupt
        rate = self.config.rate(max(state.step - 1, 0), steps)
        return {"epoch": state.epoch + 1, "loss": state.loss / max(state.count, 1), "lr": rate}

    def _step(self, batch: Batch, rate: float) -> float:
        """Take one optimisation step and return its loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self._optimizer.step()
        value = float(loss.detach())
        self.state.add(value, len(batch))
        return value

    def _loss(self, batch: Batch) -> Tensor:
        try:
            loss = self._criterion(batch.images, self.model(batch.images), batch.labels)
            trouble = "" if math.isfinite(float(loss.detach())) else f"the loss is {float(loss.detach())}"
        except HawqError as error:  # a quantizer whose range broke
            trouble = str(error)
        if trouble:
            raise HawqError(
                f"{trouble}, at epoch {self.state.epoch}, step {self.state.step}{self._suspect()}; the last "
                f"checkpoint is kept: lower --lr (now {self.config.lr}) and use --resume"
            )
        return loss
