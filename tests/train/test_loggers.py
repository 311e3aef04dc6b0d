"""What the loggers write, and how they go on after a restart."""

import csv
import json
import sys

import pytest
from test_training import quantized, silent, tiny_data

from hawq.errors import UsageError
from hawq.train.loggers import LOGGERS, open_loggers
from hawq.train.quantized import train_quantized

_ROWS = [
    {"epoch": n, "loss": 1 / n, "lr": 0.1, "top1": 10.0 * n, "top5": 50.0, "seconds": 2.0, "images_per_second": 24.0}
    for n in range(1, 5)
]


def _write(folder, epochs, *names):
    with open_loggers(names, folder, {"lr": 0.1}) as loggers:
        for row in epochs:
            for logger in loggers:
                logger.epoch(row)


def _csv(folder):
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _jsonl(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_files_hold_every_epoch(tmp_path):
    _write(tmp_path, _ROWS)
    assert _csv(tmp_path) == _jsonl(tmp_path) == _ROWS


def test_an_epoch_trained_again_replaces_its_line_and_those_behind_it(tmp_path):
    _write(tmp_path, _ROWS)
    again = {**_ROWS[1], "loss": 0.75}
    _write(tmp_path, [again])
    assert _csv(tmp_path) == _jsonl(tmp_path) == [_ROWS[0], again]
    _write(tmp_path, _ROWS[:1])
    assert _csv(tmp_path) == _jsonl(tmp_path) == _ROWS[:1]


def test_a_training_writes_its_metrics(graph, tmp_path):
    train_quantized(quantized(graph, tmp_path), graph, tiny_data(), silent)
    rows = _csv(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(row["seconds"] > 0 and row["images_per_second"] == pytest.approx(48 / row["seconds"], rel=0.05)
               for row in rows)  # fmt: skip
    assert rows == _jsonl(tmp_path)


def test_an_unknown_logger_is_refused(tmp_path):
    with pytest.raises(UsageError, match="logger 'paper' is unknown; allowed are csv, jsonl, mlflow, tensorboard"):
        _write(tmp_path, _ROWS, "paper")


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")])
def test_an_extra_that_is_not_installed_says_how_to_get_it(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"pip install 'hawq\[{name}\]'"):
        LOGGERS[name](tmp_path, {})


def test_tensorboard_gets_every_metric_and_forgets_what_is_trained_again(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _write(tmp_path, _ROWS[:3], "tensorboard")
    _write(tmp_path, _ROWS[1:], "tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == sorted(_ROWS[0].keys() - {"epoch"})
    assert [(event.step, event.value) for event in events.Scalars("top1")] == [(n, 10.0 * n) for n in range(1, 5)]


def test_mlflow_goes_on_in_the_same_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    folder = tmp_path / "run" / "uniform4"
    _write(folder, _ROWS[:2], "mlflow")
    _write(folder, _ROWS[2:], "mlflow")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("hawq").experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params) == ("run-uniform4", "FINISHED", {"lr": "0.1"})
    points = client.get_metric_history(run.info.run_id, "top1")
    assert [(point.step, point.value) for point in points] == [(n, 10.0 * n) for n in range(1, 5)]
