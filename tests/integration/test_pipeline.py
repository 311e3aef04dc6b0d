"""The commands of daily use, typed one after the other by somebody else, on the embedded data and on CIFAR-10."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from shared_data import shared

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *words: str) -> dict:
    """Type a command in a folder and return its JSON."""
    script = [str(ROOT / "quant_train.py")] if words[0] == "quant_train.py" else ["-m", "hawq", words[0]]
    done = subprocess.run([sys.executable, *script, *words[1:], "--json"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def chain(folder: Path, *data: str, weights: tuple[str, ...] = (), training: tuple[str, ...] = ()) -> dict:
    """Search, train, export, verify and evaluate with the defaults."""
    assert run(folder, "search", "--budget", "bops0.5", *weights, *data)["scheme"] == "bops0.5"
    run(folder, "quant_train.py", "--quant-scheme", "bops0.5", *training, *data)
    run(folder, "export", "--target", "llvm", *data)
    report = run(folder, "verify", "--target", "llvm", "--until", "all", "-n", "64", *data)
    assert report["exact"] is True
    assert report["images"] == 64
    latency = run(folder, "bench", "--target", "llvm", "--seconds", "0.2", *(w for w in data))["latency"]
    assert all(figure["median_ms"] > 0 for figure in latency.values())
    return run(folder, "eval", "--target", "llvm", *data)


@pytest.mark.slow
def test_the_commands_chain_on_the_embedded_digits(tmp_path):
    found = chain(tmp_path)
    assert found["bops0.5, integers"]["top1"] == found["bops0.5, llvm"]["top1"]
    assert found["bops0.5, llvm"]["top1"] >= found["float"]["top1"] - 0.5


@pytest.mark.slow
def test_the_commands_chain_on_cifar10(tmp_path):
    file = str(shared("cifar10/cifar10_lossless.npz"))
    weights = str(shared("weights/cifar10_resnet20_pytorchcv.pth"))
    found = chain(
        tmp_path,
        *("--data", "npz", "--data-path", file),
        weights=("--weights", weights),
        training=("--epochs", "1"),
    )
    assert found["float"]["top1"] == 91.0
    assert found["bops0.5, integers"]["top1"] == found["bops0.5, llvm"]["top1"]
    assert found["bops0.5, llvm"]["top1"] >= 87
