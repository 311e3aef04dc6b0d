"""`hawq export` and the commands after it: what is reused, and how many threads run."""

import json

import pytest
import torch
import typer
from tiny_run import set_up
from typer.testing import CliRunner

from hawq.checkpoint import write_checkpoint
from hawq.cli.bench import bench
from hawq.cli.export import export
from hawq.cli.session import DataRequest, open_session
from hawq.cli.verify import verify
from hawq.errors import UsageError
from hawq.qat.checkpoint import describe
from hawq.qat.model import QuantizedModel
from hawq.schemes import uniform
from hawq.train.float import FloatRequest

DATA = ("--data", "npz", "--data-path", "images.npz", "--quant-scheme", "uniform8", "--run-dir", "run")


def run(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [*arguments, *DATA, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Go to a folder with a run that holds a calibrated checkpoint."""
    monkeypatch.chdir(tmp_path)
    for name in ("TVM_NUM_THREADS", "TVM_BIND_THREADS"):
        monkeypatch.setenv(name, "1")  # so that what a command sets is undone
    set_up(tmp_path)
    request = FloatRequest("net.py:tiny", weights=tmp_path / "float.safetensors")
    session = open_session(request, DataRequest("npz", tmp_path / "images.npz"), tmp_path / "run")
    model = QuantizedModel(session.graph, uniform("net.py:tiny", session.graph, 8))
    model.calibrate([torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))])
    write_checkpoint(session.run.best("uniform8"), describe(model.eval()))
    return tmp_path


def test_a_second_export_reuses_the_kernels_and_the_library_runs_on_as_many_threads_as_asked(place):
    network = ("-a", "net.py:tiny", "--weights", "float.safetensors")
    first, _ = run(export, *network, "--cache-dir", "kernels", "-j", "2")
    count = first["kernels"]["compiled"]
    assert first["kernels"] == {"reused": 0, "compiled": count}
    assert count == len(list((place / "kernels").iterdir())) > 5
    second, printed = run(export, *network, "--cache-dir", "kernels")
    assert second["kernels"] == {"reused": count, "compiled": 0}
    assert f"{count} of {count} kernels reused" in printed
    report, printed = run(verify, "-a", "net.py:tiny", "--threads", "2", "--until", "all")
    assert report["exact"] is True
    assert "(uniform8, llvm, 2 threads" in printed


def test_a_tuned_export_is_exact_and_its_log_gives_the_same_library(place):
    network = ("-a", "net.py:tiny", "--weights", "float.safetensors", "--cache-dir", "kernels")
    first, printed = run(export, *network, "--tune", "--tune-seconds", "2", "--threads", "2")
    assert first["tuning"]["threads"] == 2
    assert "Tuning, 2 threads" in printed
    assert "stem" in printed
    library = place / first["library"]
    log = library.with_name("tuning.jsonl")
    bytes_, lines = library.read_bytes(), log.read_text()
    assert len(lines.splitlines()) > 2
    report, _ = run(verify, "-a", "net.py:tiny", "--threads", "2", "--until", "all")
    assert report["exact"] is True
    again, _ = run(export, *network, "--tune-log", str(log), "--threads", "2")
    assert (library.read_bytes(), log.read_text(), again["tuning"]) == (bytes_, lines, first["tuning"])
    other, _ = run(export, *network, "--tune-log", str(log))  # the log knows nothing about one thread
    assert other["tuning"] == {"threads": 1, "plans": {}}
    assert run(export, *network)[0]["tuning"] is None


def test_a_log_that_is_to_be_followed_must_exist(place):
    with pytest.raises(UsageError, match=r"none.jsonl does not exist: give --tune to make it"):
        run(export, "-a", "net.py:tiny", "--weights", "float.safetensors", "--tune-log", "none.jsonl")


def test_cuda_has_nothing_to_tune(place):
    with pytest.raises(UsageError, match="leave --tune and --tune-log out"):
        run(export, "-a", "net.py:tiny", "--weights", "float.safetensors", "--target", "cuda", "--tune")


def test_a_library_of_any_batch_is_verified_and_timed_at_the_batch_asked_for(place):
    network = ("-a", "net.py:tiny", "--weights", "float.safetensors")
    run(export, *network, "--cache-dir", "kernels", "--batch-size", "any")
    report, _ = run(verify, "-a", "net.py:tiny")
    assert report["exact"] is True
    for arguments, batch in (((), 1), (("--batch-size", "3"), 3)):
        document, _ = run(bench, "-a", "net.py:tiny", "--seconds", "0.1", *arguments)
        assert document["batch"] == batch
    with pytest.raises(UsageError, match=r"the library takes at most \d+ images a call"):
        run(bench, "-a", "net.py:tiny", "--batch-size", str(10**9))


def test_a_library_of_any_batch_has_nothing_to_tune(place):
    with pytest.raises(UsageError, match="with --tune and --tune-log give --batch-size a number"):
        run(export, "-a", "net.py:tiny", "--weights", "float.safetensors", "--batch-size", "any", "--tune")


def test_a_library_of_one_batch_is_timed_at_no_other(place):
    run(export, "-a", "net.py:tiny", "--weights", "float.safetensors", "--batch-size", "2")
    with pytest.raises(UsageError, match="--batch-size 1: the library takes exactly 2 images a call"):
        run(bench, "-a", "net.py:tiny", "--batch-size", "1")


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "foo", ""])
def test_a_batch_that_is_no_number_of_images_is_told(text, place):
    with pytest.raises(UsageError, match=f"--batch-size '{text}': give a number of images, at least 1, or any"):
        run(export, "-a", "net.py:tiny", "--batch-size", text)
