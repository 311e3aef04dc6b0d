"""A training that was killed goes on as if it had not been: the final files are byte-equal."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_training import Silent, quantized, resumed, silent, tiny_data

from hawq.checkpoint import read_checkpoint
from hawq.errors import HawqError
from hawq.train.groups import Group
from hawq.train.mixup import Mixup
from hawq.train.optimizers import AdamW
from hawq.train.precision import Precision
from hawq.train.quantized import train_quantized

FILES = ("checkpoint.pt", "best.pt")
METRICS = ("metrics.csv", "metrics.jsonl")
STEPS = 2 * 3  # two epochs of 48 images in batches of 16

SCRIPT = """
import contextlib, os, signal, sys, threading
from dataclasses import replace
from pathlib import Path
import torch
sys.path[:0] = {paths!r}
from networks import SIZE, build
from test_training import Silent, quantized, resumed, tiny_data
from hawq.graph.trace import trace
from hawq.train.quantized import train_quantized

torch.set_num_threads(1)
torch.manual_seed(0)
graph = trace(build("Residual"), (3, SIZE, SIZE))
folder, when = Path(sys.argv[1]), sys.argv[2]
die = lambda: os.kill(os.getpid(), signal.SIGKILL)

class Killed(Silent):
    def step(self, report):
        if when == f"step {{report.done}}":
            die()

@contextlib.contextmanager
def progress():
    if when.startswith("after"):
        threading.Timer(float(when.split()[1]), die).start()
    yield Killed()

resume = folder / "checkpoint.pt"
run = resumed(quantized(graph, folder), resume if resume.exists() else None)
run = replace(run, save_seconds=0.0)
train_quantized(run, graph, tiny_data(), progress)
os._exit(0)
"""


def _train(folder, when="never"):
    here = Path(__file__).resolve()
    paths = [str(here.parents[2]), str(here.parents[1] / "support"), str(here.parent)]
    command = [sys.executable, "-c", SCRIPT.format(paths=paths), str(folder), when]
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert _train(folder).returncode == 0
    return folder


def _same(folder, whole):
    """Tell whether the files are byte-equal, the seconds in the metrics apart."""
    return all((folder / name).read_bytes() == (whole / name).read_bytes() for name in FILES) and all(
        _untimed(folder / name) == _untimed(whole / name) for name in METRICS
    )


def _untimed(path):
    lines = path.read_text().splitlines()
    rows = list(csv.DictReader(lines)) if path.suffix == ".csv" else [json.loads(line) for line in lines]
    assert [float(row["epoch"]) for row in rows if not float(row["epoch"]) % 1] == [1, 2]
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")} for row in rows
    ]


@pytest.mark.parametrize("step", random.Random(0).sample(range(1, STEPS + 1), 2))
def test_killed_at_a_step_and_resumed(whole, tmp_path, step):
    assert _train(tmp_path, f"step {step}").returncode == -signal.SIGKILL
    finished = _train(tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert _same(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_again_and_again(whole, tmp_path, seed):
    """Kill after random times, within a write too, until a run gets through."""
    times = random.Random(seed)
    ends = [_train(tmp_path, f"after {times.uniform(0.002, 0.06)}").returncode for _ in range(6)]
    assert -signal.SIGKILL in ends
    assert _train(tmp_path).returncode == 0
    assert _same(tmp_path, whole)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == sorted(FILES + METRICS)


class Signalled(Silent):
    """Send a signal to this process in a step, as Ctrl-C does."""

    def __init__(self, number, at):
        self._number, self._at, self.seen = number, at, 0

    def step(self, report):
        self.seen += 1
        if self.seen == self._at:
            os.kill(os.getpid(), self._number)


EVERYTHING = {
    "optimizer": AdamW(), "accumulate": 2, "batch_size": 8, "warmup": 0.5, "mixup": Mixup(0.4), "average": 0.9,
    "patience": 3, "precision": Precision.FP16, "channels_last": True, "clip_norm": 1.0, "decay_small": False,
    "groups": (Group("*.bias", lr=0.5),), "lr": 0.001, "evaluations": 2,
}  # fmt: skip


@pytest.mark.parametrize("step", [2, 3])
def test_every_option_is_part_of_the_state(graph, tmp_path, step):
    run = quantized(graph, tmp_path / "stopped", **EVERYTHING)
    with pytest.raises(KeyboardInterrupt):
        train_quantized(run, graph, tiny_data(), lambda: _given(Signalled(signal.SIGINT, step)))
    train_quantized(resumed(run, run.folder / "checkpoint.pt"), graph, tiny_data(), silent)
    train_quantized(replace(run, folder=tmp_path / "whole"), graph, tiny_data(), silent)
    assert _same(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_the_step_and_the_rest_is_the_same(graph, tmp_path, number):
    run = quantized(graph, tmp_path / "stopped")
    heard = Signalled(number, 2)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        train_quantized(run, graph, tiny_data(), lambda: _given(heard))
    assert signal.getsignal(number) is before
    body = read_checkpoint(run.folder / "checkpoint.pt")
    assert (body["epoch"], body["step"], heard.seen) == (0, 2, 2)
    train_quantized(resumed(run, run.folder / "checkpoint.pt"), graph, tiny_data(), silent)
    train_quantized(replace(run, folder=tmp_path / "whole"), graph, tiny_data(), silent)
    assert _same(tmp_path / "stopped", tmp_path / "whole")


class _given:
    def __init__(self, progress):
        self._progress = progress

    def __enter__(self):
        return self._progress

    def __exit__(self, *error):
        return False


def test_within_an_epoch_seed_and_batch_size_must_be_the_same(graph, tmp_path):
    run = quantized(graph, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train_quantized(run, graph, tiny_data(), lambda: _given(Signalled(signal.SIGINT, 1)))
    checkpoint = tmp_path / "checkpoint.pt"
    for changes in ({"seed": 1}, {"batch_size": 8}, {"accumulate": 2}):
        other = resumed(quantized(graph, tmp_path, **changes), checkpoint)
        with pytest.raises(HawqError, match="was saved within an epoch with"):
            train_quantized(other, graph, tiny_data(), silent)


def test_a_loss_that_breaks_names_the_layer_and_keeps_the_last_checkpoint(graph, tmp_path):
    run = quantized(graph, tmp_path, epochs=2, lr=1e30)
    with pytest.raises(
        HawqError, match=r"at epoch \d, step \d; the .* of \S+ (is|are) not finite; the last checkpoint is kept"
    ):
        train_quantized(replace(run, save_seconds=0.0), graph, tiny_data(), silent)
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] >= 1
