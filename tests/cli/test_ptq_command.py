"""`hawq ptq` as a user types it: with images, with nothing but weights, and what it refuses."""

import re

import pytest
from tiny_run import run_command, set_up

from hawq.checkpoint import read_checkpoint, write_checkpoint
from hawq.cli.ptq import ptq
from hawq.errors import UsageError


@pytest.fixture
def place(tmp_path, monkeypatch):
    set_up(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_methods_are_listed(place):
    output = run_command(ptq, "--method", "list").output
    assert "equalize" in output
    assert "presets" in output


def test_a_network_is_quantized_and_says_what_is_next(place):
    options = ("--scheme", "uniform4", "--method", "mse,equalize,bias-correction-data", "--num-classes", "3")
    output = run_command(ptq, *options).output
    assert "uniform4 by equalize, mse, bias-correction-data" in output
    (following,) = re.findall(r"next: (hawq export --target llvm .*)", output)
    assert "-a net.py:tiny" in following
    assert "--num-classes 3" in following
    body = read_checkpoint(place / "run" / "uniform4" / "best.pt")
    assert body["methods"] == ["equalize", "mse", "bias-correction-data"]


def test_biases_of_few_bits_and_sixteen_bits_everywhere(place):
    run_command(ptq, "--bias-bit", "8", "--num-classes", "3")
    assert read_checkpoint(place / "run" / "uniform8" / "best.pt")["options"]["bias_bits"] == 8
    output = run_command(ptq, "--method", "naive16", "--run-dir", "other", "--num-classes", "3").output
    assert "16 bits are simulated in float32" in output
    assert not (place / "other" / "uniform8").exists()


def test_the_same_command_gives_the_same_bytes(place):
    found = []
    for _ in range(2):
        run_command(ptq, "--method", "mse,bias-correction-data")
        found.append((place / "run" / "uniform8" / "best.pt").read_bytes())
    assert found[0] == found[1]


def test_weights_are_enough(place):
    output = run_command(ptq, "--data", "none", "--size", "8").output
    assert "no real images, so no accuracy" in output
    assert (place / "run" / "uniform8" / "best.pt").is_file()


def test_a_trained_network_is_not_lost(place):
    write_checkpoint(place / "run" / "uniform8" / "best.pt", {"count": 1})
    with pytest.raises(UsageError, match="--overwrite"):
        run_command(ptq)
    run_command(ptq, "--overwrite")


def test_a_rule_that_needs_images_says_so(place):
    with pytest.raises(UsageError, match="needs images"):
        run_command(ptq, "--data", "none", "--size", "8", "--method", "mse")


def test_statistics_serve_without_images(place):
    run_command(ptq, "--method", "mse", "--stats", "stats.json")
    before = (place / "run" / "uniform8" / "best.pt").read_bytes()
    (place / "images.npz").unlink()
    run_command(ptq, "--method", "mse", "--stats", "stats.json", "--data", "none", "--size", "8")
    assert (place / "run" / "uniform8" / "best.pt").read_bytes() == before
    with pytest.raises(UsageError, match="statistics of another network"):
        run_command(ptq, "--method", "equalize", "--stats", "stats.json", "--data", "none", "--size", "8")


def test_a_simulation_leaves_no_checkpoint(place):
    output = run_command(ptq, "--scheme", "uniform4", "--method", "aciq,simulate-bits").output
    assert "uniform4, simulated" in output
    assert "next:" not in output
    assert not (place / "run" / "uniform4" / "best.pt").exists()


def test_bits_a_weight_may_be_any_number(place):
    output = run_command(ptq, "--scheme", "uniform4", "--method", "allocate-bits", "--mean-bits", "5.3").output
    assert "bits a weight on average" in output
