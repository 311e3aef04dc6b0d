"""torchrun: a training comes to the same bytes on 1, 2 and 4 processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from deployed import check_deployed
from shared_training import TRAININGS, network, train_all
from tiny_run import set_up

from hawq.checkpoint import read_checkpoint
from hawq.qat.checkpoint import load_quantized

FILES = ("checkpoint.pt", "best.pt")
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "support", ROOT / "tests" / "train"))),
}


def _command(processes, *arguments):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return {"args": [*launch, *map(str, arguments)], "env": ENVIRONMENT, "text": True}


def _torchrun(processes, *arguments):
    return subprocess.run(**_command(processes, *arguments), capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of the trainings on 1, 2 and 4 processes; each goes on where the one before was stopped."""
    folder, threads = tmp_path_factory.mktemp("trained"), torch.get_num_threads()
    train_all(folder / "1")
    torch.set_num_threads(threads)
    for processes, before in ((2, 1), (4, 2)):
        script, stopped = ROOT / "tests" / "support" / "shared_training.py", folder / f"{before}/stopped/checkpoint.pt"
        done = _torchrun(processes, script, folder / str(processes), stopped)
        assert done.returncode == 0, done.stderr
    return folder


def _same(one, other):
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("name", TRAININGS)
def test_the_number_of_processes_changes_no_bit(trained, name, processes):
    assert _same(trained / str(processes) / name, trained / "1" / name)
    assert read_checkpoint(trained / "1" / name / "checkpoint.pt")["step"] == 6


def test_what_four_processes_train_is_what_is_deployed(trained, tmp_path):
    one, four = (load_quantized(trained / size / "statistics" / "best.pt", network()) for size in "14")
    assert one.lower().ops == four.lower().ops
    assert all(tensor.equal(four.lower().tensors[name]) for name, tensor in one.lower().tensors.items())
    check_deployed(four, tmp_path)


@pytest.mark.parametrize("processes", [2, 4])
def test_a_signal_to_one_stops_all_behind_the_same_step_and_others_go_on(trained, processes):
    folder = trained / str(processes)
    assert len(list(folder.glob("stopped-*"))) == processes
    assert read_checkpoint(folder / "stopped" / "checkpoint.pt")["step"] == 2
    assert _same(folder / "resumed", trained / "1" / "folded")


def test_what_breaks_on_one_ends_all_with_the_same_message(trained):
    (alone,) = (path.read_text() for path in (trained / "1").glob("broken-*"))
    assert alone.startswith("the loss is inf, at epoch 0, step 1")
    for processes in (2, 4):
        messages = [path.read_text() for path in (trained / str(processes)).glob("broken-*")]
        assert messages == [alone] * processes


TRAIN = (
    ROOT / "quant_train.py", "-a", "net.py:tiny", "--data", "npz", "--data-path", "images.npz", "--weights",
    "float.safetensors", "--quant-scheme", "uniform4", "--batch-size", "2", "--epochs", "30", "--lr", "0.01",
)  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    set_up(tmp_path)
    return tmp_path


def _begin(run):
    """Begin a training on two processes, and return it once it has written a checkpoint."""
    options = ("--accumulate", 4, "--run-dir", run, "--save-minutes", 0)
    process = subprocess.Popen(**_command(2, *TRAIN, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (Path(run) / "uniform4" / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.slow
def test_one_process_speaks_for_all(place):
    found = [_torchrun(n, *TRAIN, "--accumulate", 4, "--run-dir", f"run{n}", "--json") for n in (1, 2)]
    documents = [json.loads(each.stdout) for each in found]
    assert documents[0] == documents[1]
    assert found[1].stderr.count("checkpoint: run2") == 1
    assert _same(place / "run1" / "uniform4", place / "run2" / "uniform4")
    refused = _torchrun(2, *TRAIN, "--run-dir", "run2")
    assert refused.returncode == 1  # torchrun's own
    assert refused.stderr.count("error:") == 1
    assert "give --batch-size 1 --accumulate 2: the same step of 2 images in 2 pieces" in refused.stderr


@pytest.mark.slow
def test_ctrl_c_and_kill_9_lose_nothing(place):
    whole = _torchrun(1, *TRAIN, "--accumulate", 4, "--run-dir", "whole")
    assert whole.returncode == 0, whole.stderr
    stopped = _begin("stopped")
    stopped.send_signal(signal.SIGINT)
    said = stopped.communicate(timeout=60)[1]
    assert said.count("stopped; every step so far is kept") == 1
    killed = _begin("killed")
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    killed.communicate(timeout=60)
    for run in ("stopped", "killed"):
        checkpoint = place / run / "uniform4" / "checkpoint.pt"
        assert 0 < read_checkpoint(checkpoint)["step"] < 90
        done = _torchrun(1, *TRAIN, "--accumulate", 4, "--run-dir", run, "--resume", checkpoint)
        assert done.returncode == 0, done.stderr
        assert _same(place / run / "uniform4", place / "whole" / "uniform4")
