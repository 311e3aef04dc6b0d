"""Log the metrics of every epoch for TensorBoard, an extra."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hawq.errors import UsageError
from hawq.train.loggers.registry import register_logger
from hawq.train.state import StepReport

__all__ = ["TensorBoardLog"]


@register_logger("tensorboard")
class TensorBoardLog:
    """Write events to `tensorboard/`, one scalar a metric; after a restart epochs trained again replace the old ones.

    Args:
        folder: of the training.
        settings: kept as a text.

    Raises:
        UsageError: the package is not installed.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError("--tensorboard needs the package tensorboard: pip install 'hawq[tensorboard]'") from error
        self._kind: Any = SummaryWriter
        self._folder, self._settings = folder / "tensorboard", settings
        self._writer: Any = None

    def step(self, report: StepReport) -> None:
        """Pass over it."""

    def epoch(self, row: dict[str, float]) -> None:
        """Write one point of every metric's curve at the end of an epoch; steps are whole numbers there."""
        if row["epoch"] % 1:
            return
        epoch = int(row["epoch"])
        if self._writer is None:
            self._writer = self._kind(str(self._folder), purge_step=epoch)
            self._writer.add_text("settings", "\n".join(f"- {key}: {value}" for key, value in self._settings.items()))
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
