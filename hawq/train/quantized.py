"""Fine-tune a quantized network, or calibrate it alone."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hawq.bitconfig import BitConfig
from hawq.checkpoint import read_checkpoint, write_checkpoint
from hawq.data import ImageData
from hawq.errors import HawqError
from hawq.graph.ir import FloatGraph
from hawq.qat.checkpoint import describe, restore
from hawq.qat.model import QuantizedModel
from hawq.qat.plan import QuantOptions
from hawq.train.config import TrainConfig
from hawq.train.criterion import PLAIN, Criterion
from hawq.train.evaluate import Accuracy, accuracy
from hawq.train.feed import Feed
from hawq.train.loggers import open_loggers
from hawq.train.state import Listener
from hawq.train.trainer import Trainer

__all__ = ["QuantizedRun", "train_quantized"]

_CALIBRATION_IMAGES = 256
_CALIBRATION_BATCH = 16


@dataclass(frozen=True)
class QuantizedRun:
    """Say what to train and where to keep it.

    Attributes:
        bits: of every unit.
        options: of quantization.
        config: of training; 0 epochs calibrate alone.
        folder: gets `checkpoint.pt`, `best.pt`, `metrics.csv` and `metrics.jsonl`.
        device: cpu or cuda.
        resume: a checkpoint of the same scheme to go on from.
        workers: threads that decode images.
        save_seconds: between two checkpoints within an epoch, at most.
        criterion: what is minimised.
        loggers: names in LOGGERS that hear of every epoch, beside the files.
    """

    bits: BitConfig
    options: QuantOptions
    config: TrainConfig
    folder: Path
    device: str = "cpu"
    resume: Path | None = None
    workers: int = 0
    save_seconds: float = 300.0
    criterion: Criterion = PLAIN
    loggers: tuple[str, ...] = ()


def train_quantized(
    run: QuantizedRun, graph: FloatGraph, data: ImageData, progress: Callable[[], AbstractContextManager[Listener]]
) -> tuple[QuantizedModel, Accuracy]:
    """Train and keep a checkpoint after every epoch.

    Args:
        run: what to train and where to keep it.
        graph: the float network.
        data: to calibrate, train and test on.
        progress: returns a context manager that gives a Listener.

    Returns:
        The best model, in evaluation mode on the CPU, and its accuracy in integers.

    Raises:
        HawqError: the loss is not finite, or the checkpoint to resume belongs to another scheme.
    """
    model, trainer = _begin(run, graph, Feed(data, run.config, run.device, run.workers))
    keeper = _Checkpoints(run, model)
    if run.config.epochs <= trainer.state.epoch and not trainer.state.history:  # calibrated alone
        result = trainer.evaluate()
        trainer.state.best = result.top1
        keeper.best(trainer)
        keeper.last(trainer)
        return model.cpu(), result
    with progress() as heard, open_loggers(run.loggers, run.folder, run.config.to_json()) as loggers:
        result = trainer.run(keeper, [heard, *loggers])
    if result.top1 < trainer.state.best:
        model.load_state_dict(read_checkpoint(keeper.best_path)["model"])
        result = accuracy(model, trainer.feed.test())
    return model.cpu(), result


class _Checkpoints:
    """Keep the best network and the state to go on from as files."""

    def __init__(self, run: QuantizedRun, model: QuantizedModel) -> None:
        self._run, self._model, self.seconds = run, model, run.save_seconds
        self.best_path = run.folder / "best.pt"

    def best(self, trainer: Trainer) -> None:
        """Write `best.pt`."""
        write_checkpoint(self.best_path, self._body(trainer))

    def last(self, trainer: Trainer) -> None:
        """Write `checkpoint.pt`."""
        write_checkpoint(self._run.folder / "checkpoint.pt", self._body(trainer))

    def _body(self, trainer: Trainer) -> dict[str, Any]:
        settings = {**self._run.config.to_json(), "device": self._run.device}
        return {**describe(self._model), **trainer.state_dict(), "settings": settings}


def _begin(run: QuantizedRun, graph: FloatGraph, feed: Feed) -> tuple[QuantizedModel, Trainer]:
    if run.resume is None:
        model = QuantizedModel(graph, run.bits, run.options).to(run.device)
        model.calibrate(feed.calibration(_CALIBRATION_IMAGES, _CALIBRATION_BATCH))
        return model, Trainer(model, feed, run.criterion, model.suspect)
    body = read_checkpoint(run.resume)
    if body["scheme"] != run.bits.scheme:
        raise HawqError(f"{run.resume} holds scheme {body['scheme']}, not {run.bits.scheme}; give it no --resume")
    model = restore(body, graph).to(run.device)
    trainer = Trainer(model, feed, run.criterion, model.suspect)
    trainer.load_state_dict(body)
    if trainer.state.count:
        _check_same_order(run, body["settings"])
    return model, trainer


def _check_same_order(run: QuantizedRun, settings: Mapping[str, Any]) -> None:
    """Check that the rest of an epoch holds the images that were not seen yet.

    Raises:
        HawqError: another seed or number of images in a step.
    """
    for name in ("seed", "batch_size", "accumulate"):
        now = getattr(run.config, name)
        if settings[name] != now:
            raise HawqError(
                f"{run.resume} was saved within an epoch with {name} {settings[name]}, given is {now}; "
                f"resume with --{name.replace('_', '-')} {settings[name]}"
            )
