"""Follow a training: a bar with the time left on a terminal, lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import rich.progress

from hawq.cli.console import console, progress
from hawq.train.state import Listener, StepReport

__all__ = ["training_progress"]

_LINE_SECONDS = 60.0


class _Bar:
    """Show the steps of the whole training as a bar and an epoch's metrics as a line."""

    def __init__(self, bars: rich.progress.Progress, title: str) -> None:
        self._bars, self._title = bars, title
        self._task = bars.add_task(title, total=None, status="")

    def step(self, report: StepReport) -> None:
        """Move the bar."""
        self._bars.update(
            self._task,
            completed=report.done,
            total=report.total,
            description=f"{self._title}, epoch {report.epoch + 1}/{report.epochs}",
            status=f"loss {report.loss:.3f}, lr {report.lr:.2g}",
        )

    def epoch(self, row: dict[str, float]) -> None:
        """Print the metrics."""
        console.print(
            f"{self._title}: epoch {row['epoch']:.3g}, loss {row['loss']:.4f}, top-1 {row['top1']:.2f}%, "
            f"{row['images_per_second']:.0f} images/s",
            style="dim",
        )


class _Lines(_Bar):
    """Print where a long epoch stands, with the time left by the steps of this process.

    Args:
        bars: where epochs are told.
        title: of the training.
        every: steps between two lines; None: a minute.
    """

    def __init__(self, bars: rich.progress.Progress, title: str, every: int | None) -> None:
        super().__init__(bars, title)
        self._every = every
        self._began = self._printed = time.monotonic()
        self._first: int | None = None

    def step(self, report: StepReport) -> None:
        """Print a line where one is due."""
        now = time.monotonic()
        self._first = report.done - 1 if self._first is None else self._first
        due = now - self._printed >= _LINE_SECONDS if self._every is None else report.done % self._every == 0
        if not due:
            return
        self._printed = now
        left = (now - self._began) / (report.done - self._first) * (report.total - report.done)
        console.print(
            f"{self._title}: epoch {report.epoch + 1}/{report.epochs}, step {report.step}/{report.steps}, "
            f"loss {report.loss:.3f}, lr {report.lr:.2g}, {timedelta(seconds=round(left))} left",
            style="dim",
        )


@contextmanager
def training_progress(title: str, every: int | None = None) -> Iterator[Listener]:
    """Follow a training on stderr: a bar on a terminal, lines elsewhere, or a line after every so many steps."""
    with progress() as bars:
        yield _Bar(bars, title) if console.is_terminal and every is None else _Lines(bars, title, every)
