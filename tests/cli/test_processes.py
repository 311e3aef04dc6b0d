"""HAWQ's --dist-* options: the processes they make up, and what those come to."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import set_up

from hawq.cli.processes import ProcessFlags, take_part
from hawq.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
TRAIN = (
    sys.executable, str(ROOT / "quant_train.py"), "-a", "net.py:tiny", "--data", "npz", "--data-path", "images.npz",
    "--weights", "float.safetensors", "--quant-scheme", "uniform4", "--batch-size", "4", "--epochs", "1",
    "--lr", "0.01",
)  # fmt: skip
NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "HAWQ_DIST_BACKEND")


def free_address():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{found.getsockname()[1]}"


def start(folder, *arguments, **environment):
    outside = {name: value for name, value in os.environ.items() if name not in NAMES}
    env = {**outside, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(
        [*TRAIN, *arguments], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


def test_two_processes_by_hand_and_one_for_every_core_train_what_one_does(tmp_path):
    for name in ("one", "by hand", "cores"):
        (tmp_path / name).mkdir()
        set_up(tmp_path / name)
    pieces = str(2 * (os.cpu_count() or 1))
    finish(start(tmp_path / "one", "--accumulate", pieces))
    by_hand = ("--accumulate", pieces, "--world-size", "2", "--dist-url", free_address(),
               "--dist-backend", "gloo")  # fmt: skip
    leader, other = (start(tmp_path / "by hand", *by_hand, "--rank", rank) for rank in "01")
    assert "top-1" in finish(leader)
    assert "top-1" not in finish(other)
    cores = ("--multiprocessing-distributed", "--dist-url", free_address(), "--accumulate", pieces)
    finish(start(tmp_path / "cores", *cores))
    checkpoints = [
        next((tmp_path / name).glob("runs/*/uniform4/checkpoint.pt")) for name in ("one", "by hand", "cores")
    ]
    assert len({path.read_bytes() for path in checkpoints}) == 1


def test_a_rank_outside_of_the_world_is_wrong_usage(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UsageError, match=r"--rank 2 with --world-size 2: give a rank of 0\.\.1"):
        take_part(ProcessFlags(world_size=2, rank=2), "cpu")
    with pytest.raises(UsageError, match="give tcp://HOST:PORT"):
        take_part(ProcessFlags(world_size=2, rank=0, dist_url="env://"), "cpu")


def test_gpu_names_the_device():
    assert ProcessFlags(gpu=1).device("cpu") == "cuda:1"
    assert ProcessFlags().device("cuda") == "cuda"
