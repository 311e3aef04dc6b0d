"""The table of post-training methods: rows are measured in processes of their own, kept, and not measured twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shared_data import shared

from hawq.graph.trace import trace
from hawq.models import create_model
from hawq.ptq import parse_methods

ROOT = Path(__file__).resolve().parents[2]


def test_every_row_can_be_asked_for(scripts):
    ptq, subjects = scripts("ptq"), scripts("ptq_subjects")
    graph = trace(create_model("resnet20_cifar10"), (3, 32, 32))
    for row in (*ptq.ROWS, *ptq.LOW):
        scheme, _, methods = row.partition(":")
        assert parse_methods(methods.removeprefix("distilled,"))
        scheme = ptq.numbers(scheme)[0]
        bits = subjects.scheme_bits(scheme, graph)
        assert (bits.units["features.stage1.unit2.body.conv1.conv"]) == tuple(int(d) for d in scheme[1:].split("A"))
        assert bits.units["output"] == (8, 8)


def test_ten_classes_are_chosen_among_a_thousand(scripts):
    images_of = scripts("ptq_subjects").LabelledSet
    logits = torch.zeros(2, 5)
    logits[0, 4], logits[0, 1], logits[1, 0] = 3.0, 2.0, 1.0
    labels = torch.tensor([1, 0])
    assert images_of("all", torch.empty(2), labels).top1(logits) == 50.0
    assert images_of("two", torch.empty(2), labels, (0, 1)).top1(logits) == 100.0


def test_a_row_that_fails_says_so(scripts):
    row = {"network": "n", "row": "W4A4:mse,brecq", "error": "HawqError: no"}
    assert scripts("ptq").shown(row) == ["W4A4", "mse,brecq", "HawqError: no"]


def test_a_row_can_have_its_own_images_and_iterations(scripts):
    ptq = scripts("ptq")
    assert ptq.numbers("W4A4@512x800") == ("W4A4", 512, 800)
    assert ptq.numbers("W4A4@512") == ("W4A4", 512, None)
    assert ptq.numbers("W4A4") == ("W4A4", None, None)
    cells = ptq.shown({"row": "W4A4@512x800:mse,brecq", "top1": {"a": 80.0}})
    assert cells == ["W4A4", "mse, brecq, 512 images, 800 iterations", "80.0"]


@pytest.mark.slow
def test_quick(tmp_path):
    command = [sys.executable, "benchmarks/ptq.py", "--data", str(shared("weights").parent), "--quick", "--json",
               "--keep", str(tmp_path / "rows.jsonl"), "--markdown", str(tmp_path / "page.md")]  # fmt: skip
    first = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert [row["row"] for row in first] == ["float", "W8A8:minmax", "W4A4:mse"]
    assert all(row["top1"]["cifar10"] >= 80 for row in first)
    assert all(row["exact"] > 600_000 for row in first[1:])
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert json.loads(again.stdout) == first
    assert "resnet20_cifar10 float\n" not in again.stderr
    assert "| W4A4 | mse | " in (tmp_path / "page.md").read_text()
