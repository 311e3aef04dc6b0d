"""Fine-tune a quantized network, or calibrate it alone."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hawq.bitconfig import BitConfig
from hawq.checkpoint import read_checkpoint, write_checkpoint
from hawq.data import ImageData
from hawq.errors import HawqError
from hawq.graph.ir import FloatGraph
from hawq.qat.checkpoint import describe, restore
from hawq.qat.model import QuantizedModel
from hawq.qat.plan import QuantOptions
from hawq.train.criterion import PLAIN, Criterion
from hawq.train.evaluate import Accuracy, accuracy
from hawq.train.loop import Progress, TrainConfig, TrainState, fit, write_metrics

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
        folder: gets `checkpoint.pt`, `best.pt` and `metrics.csv`.
        device: cpu or cuda.
        resume: a checkpoint of the same scheme to go on from.
        workers: threads that decode images.
        save_seconds: between two checkpoints within an epoch, at most.
        criterion: what is minimised.
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


def train_quantized(
    run: QuantizedRun, graph: FloatGraph, data: ImageData, progress: Callable[[], AbstractContextManager[Progress]]
) -> tuple[QuantizedModel, Accuracy]:
    """Train and keep a checkpoint after every epoch.

    Args:
        run: what to train and where to keep it.
        graph: the float network.
        data: to calibrate, train and test on.
        progress: returns a context manager that gives a Progress.

    Returns:
        The best model, in evaluation mode on the CPU, and its accuracy in integers.

    Raises:
        HawqError: the loss is not finite, or the checkpoint to resume belongs to another scheme.
    """
    config = run.config
    model, state = _begin(run, graph, data)

    def batches(epoch: int, start: int) -> Any:
        found = data.batches(
            "train",
            config.batch_size,
            shuffle=True,
            augment=True,
            seed=config.seed,
            epoch=epoch,
            start=start,
            workers=run.workers,
        )
        return ((images.to(run.device), labels.to(run.device)) for images, labels in found)

    def evaluate() -> Accuracy:
        return accuracy(model, _test_images(data, run))

    def save(state: TrainState, is_best: bool) -> None:
        body = _body(model, state, run)
        if is_best:  # first, so that a checkpoint that knows of a best one never stands without it
            write_checkpoint(run.folder / "best.pt", body)
        write_checkpoint(run.folder / "checkpoint.pt", body)
        write_metrics(run.folder / "metrics.csv", state.history)

    if config.epochs <= state.epoch and not state.history:  # calibrated alone
        result = evaluate()
        state.best = result.top1
        save(state, True)
        return model.cpu(), result
    with progress() as heard:
        steps = -(-len(data.train) // config.batch_size)
        result = fit(
            model,
            batches,
            steps,
            evaluate,
            config,
            state,
            heard,
            save,
            seconds=run.save_seconds,
            suspect=model.suspect,
            criterion=run.criterion,
        )
    if result.top1 < state.best:
        model = restore(read_checkpoint(run.folder / "best.pt"), graph).to(run.device)
        result = evaluate()
    return model.cpu(), result


def _begin(run: QuantizedRun, graph: FloatGraph, data: ImageData) -> tuple[QuantizedModel, TrainState]:
    if run.resume is None:
        model = QuantizedModel(graph, run.bits, run.options).to(run.device)
        model.calibrate(_calibration_images(data, run))
        return model.eval(), TrainState(_optimizer(model, run.config))
    body = read_checkpoint(run.resume)
    if body["scheme"] != run.bits.scheme:
        raise HawqError(f"{run.resume} holds scheme {body['scheme']}, not {run.bits.scheme}; give it no --resume")
    model = restore(body, graph).to(run.device)
    progress = {name: body[name] for name in ("epoch", "step", "best", "history", "loss", "count")}
    state = TrainState(_optimizer(model, run.config), **progress)
    state.optimizer.load_state_dict(body["optimizer"])
    if state.count:
        _check_same_order(run, body["settings"])
    return model, state


def _check_same_order(run: QuantizedRun, settings: dict[str, Any]) -> None:
    """Check that the rest of an epoch holds the images that were not seen yet.

    Raises:
        HawqError: another seed or batch size.
    """
    for name in ("seed", "batch_size"):
        now = getattr(run.config, name)
        if settings[name] != now:
            raise HawqError(
                f"{run.resume} was saved within an epoch with {name} {settings[name]}, given is {now}; "
                f"resume with --{name.replace('_', '-')} {settings[name]}"
            )


def _optimizer(model: QuantizedModel, config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay)


def _calibration_images(data: ImageData, run: QuantizedRun) -> Any:
    batches = data.batches(
        "train", _CALIBRATION_BATCH, shuffle=True, seed=run.config.seed, limit=_CALIBRATION_IMAGES, workers=run.workers
    )
    return (images.to(run.device) for images, _ in batches)


def _test_images(data: ImageData, run: QuantizedRun) -> Any:
    def moved(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return batch[0].to(run.device), batch[1]

    return map(moved, data.batches("test", 128, workers=run.workers))


def _body(model: QuantizedModel, state: TrainState, run: QuantizedRun) -> dict[str, Any]:
    settings = {**asdict(run.config), "schedule": run.config.schedule.value, "device": run.device}
    return {
        **describe(model),
        "optimizer": state.optimizer.state_dict(),
        **{name: getattr(state, name) for name in ("epoch", "step", "best", "history", "loss", "count")},
        "settings": settings,
    }
