"""Turn the options of `hawq train` into what the library takes."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hawq.cli.train_flags import DistillFlags, LogFlags, OptimizerFlags, RateFlags, SpeedFlags, TrainFlags
from hawq.errors import UsageError
from hawq.models import create_model
from hawq.train.config import Interval, TrainConfig
from hawq.train.criterion import Criterion, CrossEntropy, Distillation
from hawq.train.groups import Group
from hawq.train.mixup import Mixup
from hawq.train.optimizers import OPTIMIZERS, SGD, Optimizer
from hawq.train.precision import Precision
from hawq.train.schedules import SCHEDULES

if TYPE_CHECKING:
    from torch import nn

    from hawq.cli.session import Session

__all__ = ["criterion", "logger_names", "training_config"]


def training_config(
    recipe: TrainConfig, seed: int, training: TrainFlags, steps: OptimizerFlags, rate: RateFlags, speed: SpeedFlags
) -> TrainConfig:
    """Return the recipe with what is given in its place.

    Raises:
        UsageError: an option holds something that is not allowed, or contradicts another one.
    """
    given = {
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "average": training.ema,
        "mixup": None if training.mixup is None else Mixup(training.mixup),
        "patience": training.patience,
        "weight_decay": steps.wd,
        "clip_norm": steps.clip_grad_norm,
        "lr": rate.lr,
        "schedule": None if rate.lr_schedule is None else SCHEDULES.read(rate.lr_schedule),
        "precision": None if speed.amp is None else Precision(speed.amp.value),
    }
    return replace(
        recipe,
        seed=seed,
        evaluations=training.evaluate_times,
        accumulate=training.accumulate,
        optimizer=_optimizer(recipe.optimizer, steps),
        groups=tuple(map(Group.read, steps.group or ())),
        decay_small=steps.decay_small,
        warmup=rate.warmup,
        interval=Interval(rate.lr_interval.value),
        channels_last=speed.channels_last,
        compile=speed.compile,
        **{name: value for name, value in given.items() if value is not None},
    )


def _optimizer(usual: Optimizer, steps: OptimizerFlags) -> Optimizer:
    optimizer = usual if steps.optimizer is None else OPTIMIZERS.read(steps.optimizer)
    given: dict[str, Any] = {} if steps.momentum is None else {"momentum": steps.momentum}
    given |= {"nesterov": True} if steps.nesterov else {}
    if not given:
        return optimizer
    if not isinstance(optimizer, SGD):
        raise UsageError(f"--optimizer {steps.optimizer} has no {' and no '.join(given)}; those are of sgd")
    return replace(optimizer, **given)


def criterion(training: TrainFlags, distill: DistillFlags, session: "Session", device: str) -> Criterion:
    """Return what is minimised."""
    hard = CrossEntropy(training.label_smoothing)
    if distill.distill_method.value == "none":
        return hard
    teacher = _teacher(session, distill.teacher_arch, distill.teacher_weights).to(device)
    return Distillation(teacher, hard, distill.distill_alpha, distill.temperature)


def _teacher(session: "Session", arch: str | None, weights: Path | None) -> "nn.Module":
    """Return the teacher, in evaluation mode: the float network of the run, or another one."""
    if arch is None:
        return session.model.eval()
    classes = session.data.num_classes if weights is not None else None
    return create_model(arch, num_classes=classes, pretrained=weights is None, weights=weights).eval()


def logger_names(logs: LogFlags) -> tuple[str, ...]:
    """Return the loggers that are asked for."""
    return tuple(name for name, wanted in (("tensorboard", logs.tensorboard), ("mlflow", logs.mlflow)) if wanted)
