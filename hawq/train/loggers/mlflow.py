"""Log the metrics of every epoch to MLflow, an extra."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hawq.errors import UsageError
from hawq.files import write_atomically
from hawq.train.loggers.registry import register_logger
from hawq.train.state import StepReport

__all__ = ["MlflowLog"]

_EXPERIMENT = "hawq"


@register_logger("mlflow")
class MlflowLog:
    """Log to the server or folder that MLFLOW_TRACKING_URI names, in the experiment `hawq`.

    The run's id is kept in `mlflow-run.txt`, so that a training that goes on goes on in the same run.

    Args:
        folder: of the training.
        settings: logged as parameters.

    Raises:
        UsageError: the package is not installed.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise UsageError("--mlflow needs the package mlflow-skinny: pip install 'hawq[mlflow]'") from error
        self._client, self._note, self._settings = MlflowClient(), folder / "mlflow-run.txt", settings
        self._run: str | None = None

    def step(self, report: StepReport) -> None:
        """Pass over it."""

    def epoch(self, row: dict[str, float]) -> None:
        """Log one point of every metric's curve at the end of an epoch; steps are whole numbers there."""
        if row["epoch"] % 1:
            return
        epoch = int(row["epoch"])
        if self._run is None:
            self._run = self._note.read_text() if epoch > 1 and self._note.is_file() else self._begin()
        for name, value in row.items():
            if name != "epoch":
                self._client.log_metric(self._run, name, value, step=epoch)

    def close(self) -> None:
        """End the run."""
        if self._run is not None:
            self._client.set_terminated(self._run)

    def _begin(self) -> str:
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        experiment = self._client.create_experiment(_EXPERIMENT) if found is None else found.experiment_id
        name = "-".join(self._note.absolute().parts[-3:-1])
        run = str(self._client.create_run(experiment, run_name=name).info.run_id)
        for key, value in self._settings.items():
            self._client.log_param(run, key, value)
        write_atomically(self._note, lambda temporary: temporary.write_text(run))
        return run
