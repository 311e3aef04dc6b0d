"""Fine-tune a quantized network, or calibrate it alone."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hawq.checkpoint import read_checkpoint, write_checkpoint
from hawq.data import ImageData
from hawq.distributed import World
from hawq.evaluation import Accuracy, accuracy
from hawq.graph.ir import FloatGraph
from hawq.qat.checkpoint import describe
from hawq.qat.model import QuantizedModel
from hawq.train.begin import Beginning, begin
from hawq.train.config import TrainConfig
from hawq.train.criterion import PLAIN, Criterion
from hawq.train.features import FeatureWriter
from hawq.train.feed import Feed
from hawq.train.loggers import open_loggers
from hawq.train.state import Listener, TrainState
from hawq.train.trainer import Forget, Keeper, Trainer

__all__ = ["QuantizedRun", "evaluate_quantized", "train_quantized"]

_BEST = "best.pt"


@dataclass(frozen=True)
class QuantizedRun:
    """Say what to train and where to keep it.

    Attributes:
        beginning: scheme, options, and the checkpoint to begin from.
        config: of training; 0 epochs calibrate alone.
        folder: gets `checkpoint.pt`, `best.pt`, `metrics.csv` and `metrics.jsonl`.
        device: cpu or cuda.
        workers: threads that decode images.
        save_seconds: between two checkpoints within an epoch, at most.
        criterion: what is minimised.
        loggers: names in LOGGERS that hear of every epoch, beside the files.
        start_epoch: epochs that count as done where nothing else says so; the schedule begins there.
        features_at: optimisation step after which every feature map is written to the folder; None: never.
    """

    beginning: Beginning
    config: TrainConfig
    folder: Path
    device: str = "cpu"
    workers: int = 0
    save_seconds: float = 300.0
    criterion: Criterion = PLAIN
    loggers: tuple[str, ...] = ()
    start_epoch: int = 0
    features_at: int | None = None


def train_quantized(
    run: QuantizedRun,
    graph: FloatGraph,
    data: ImageData,
    progress: Callable[[], AbstractContextManager[Listener]],
    world: World | None = None,
) -> tuple[QuantizedModel, Accuracy]:
    """Train and keep a checkpoint after every epoch.

    Args:
        run: what to train and where to keep it.
        graph: the float network.
        data: to calibrate, train and test on.
        progress: returns a context manager that gives a Listener.
        world: processes that share every step; only the leader writes and is listened to.

    Returns:
        The best model, in evaluation mode on the CPU, and its accuracy in integers.

    Raises:
        UsageError: the processes cannot share a step evenly.
        HawqError: the loss is not finite, or the checkpoint to begin from is torn or belongs to another network.
    """
    feed = _feed(run, data, world)
    model, state = begin(run.beginning, graph, feed)
    trainer = Trainer(model, feed, run.criterion, model.suspect)
    if state is not None:
        trainer.load_state_dict(state)
    else:
        trainer.state = TrainState(epoch=run.start_epoch, step=run.start_epoch * feed.steps)
    keeper: Keeper = _Checkpoints(run, model) if feed.world.leads else Forget()
    if run.config.epochs <= trainer.state.epoch and not trainer.state.history:  # calibrated alone
        result = trainer.evaluate()
        trainer.state.best = result.top1
        keeper.best(trainer)
        keeper.last(trainer)
        return model.cpu(), result
    if feed.world.leads:
        with progress() as heard, open_loggers(run.loggers, run.folder, run.config.to_json()) as loggers:
            features = [] if run.features_at is None else [FeatureWriter(model, feed, run.folder, run.features_at)]
            result = trainer.run(keeper, [heard, *loggers, *features])
    else:
        result = trainer.run(keeper)
    if result.top1 < trainer.state.best:  # since it was written all processes have met
        model.load_state_dict(read_checkpoint(run.folder / _BEST)["model"])
        result = accuracy(model, feed.test(), feed.world)
    return model.cpu(), result


def evaluate_quantized(
    run: QuantizedRun, graph: FloatGraph, data: ImageData, world: World | None = None
) -> tuple[QuantizedModel, Accuracy]:
    """Return the model from which a training would begin, and its accuracy; nothing is trained or written.

    Raises:
        UsageError: no such checkpoint.
        HawqError: it is torn, or belongs to another network.
    """
    feed = _feed(run, data, world)
    model, _ = begin(run.beginning, graph, feed)
    return model.eval(), accuracy(model, feed.test(), feed.world)


def _feed(run: QuantizedRun, data: ImageData, world: World | None) -> Feed:
    world = world or World()
    return Feed(data, run.config, world.device(run.device), run.workers, world)


class _Checkpoints:
    """Keep the best network and the state to go on from as files."""

    def __init__(self, run: QuantizedRun, model: QuantizedModel) -> None:
        self._run, self._model, self.seconds = run, model, run.save_seconds

    def best(self, trainer: Trainer) -> None:
        """Write `best.pt`."""
        write_checkpoint(self._run.folder / _BEST, self._body(trainer))

    def last(self, trainer: Trainer) -> None:
        """Write `checkpoint.pt`."""
        write_checkpoint(self._run.folder / "checkpoint.pt", self._body(trainer))

    def _body(self, trainer: Trainer) -> dict[str, Any]:
        settings = {**self._run.config.to_json(), "device": self._run.device}
        return {**describe(self._model), **trainer.state_dict(), "settings": settings}
