"""`hawq ptq` and `hawq eval` on data of every task: float network and integer program side by side."""

import json

import pytest
import torch
import typer
from tiny_run import set_up
from typer.testing import CliRunner
from voc_tree import NETWORKS, voc_tree

from hawq.cli.eval import eval
from hawq.cli.ptq import ptq
from hawq.errors import UsageError
from hawq.files import write_tensors


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs a command in a folder of tiny networks and data, and gives its JSON and stderr."""
    monkeypatch.chdir(tmp_path)
    set_up(tmp_path)
    voc_tree(tmp_path)
    (tmp_path / "voc.py").write_text(NETWORKS)
    names: dict = {}
    exec(NETWORKS, names)
    model = names["Segmenter"]()
    torch.nn.init.constant_(model.last.weight, 0)
    torch.nn.init.constant_(model.last.bias, -1)
    with torch.no_grad():
        model.last.bias[3] = 1  # every pixel is a bird
    write_tensors(tmp_path / "voc.safetensors", model.state_dict())

    def command(function, arch, data, *arguments):
        app = typer.Typer()
        app.command()(function)
        path, weights = ("images.npz", "float") if data == "npz" else ("VOC2012", "voc")
        options = ["-a", arch, "--data", data, "--data-path", path, "--weights", f"{weights}.safetensors"]
        result = CliRunner().invoke(app, [*options, "--quant-scheme", "uniform8", "--json", *arguments])
        if result.exception is not None:
            raise result.exception
        return json.loads(result.stdout), result.stderr

    return command


ROWS = ["float", "uniform8, integers"]


def test_a_classifier_is_measured_by_its_classes(run):
    done, err = run(ptq, "net.py:tiny", "npz")
    found, _ = run(eval, "net.py:tiny", "npz")
    assert done["accuracy"] == found
    assert list(found) == ROWS
    assert [list(row) for row in found.values()] == [["top1", "top5", "agreement", "images"]] * 2
    assert (found["float"]["agreement"], found["float"]["images"]) == (100, 24)
    assert all(title in err for title in ("top-1 %", "same as float %"))


def test_a_segmentation_network_is_measured_by_its_pixels(run):
    done, err = run(ptq, "voc.py:segmenter", "voc-segmentation", "--size", "16")
    found, _ = run(eval, "voc.py:segmenter", "voc-segmentation", "--size", "16")
    # the mask of one image: half bird, a quarter background, a quarter ignored; the other: boat in place of bird.
    # All is said to be bird: 128 of 384 pixels that count are; background, bird and boat are shown: 1 / 3 of 1 / 3
    for row in ROWS:
        assert found[row] == done["accuracy"][row] == {"miou": pytest.approx(100 / 9, rel=1e-6), "images": 2}
    assert "mIOU %" in err


def test_a_detector_is_measured_by_its_boxes(run):
    done, err = run(ptq, "voc.py:detector", "voc-detection", "--size", "16")
    found, _ = run(eval, "voc.py:detector", "voc-detection", "--size", "16")
    # the left halves are a bird and a boat, and both are said to be birds with the same score, and cars beside them:
    # the bird is found first; the boat never
    for row in ROWS:
        assert found[row] == done["accuracy"][row] == {"map07": 50, "map12": 50, "images": 2}
    assert "mAP VOC07 %" in err
    assert "mAP VOC12 %" in err


def test_images_are_limited(run):
    found, _ = run(eval, "voc.py:segmenter", "voc-segmentation", "--size", "16", "--images", "1")
    # 128 of 192 pixels that count are bird, the others background
    assert found == {"float": {"miou": pytest.approx(100 * (128 / 192) / 2, rel=1e-6), "images": 1}}


def test_a_detector_must_say_what_its_boxes_are(run):
    with pytest.raises(UsageError, match=r"a method decode\(outputs\)"):
        run(eval, "voc.py:segmenter", "voc-detection", "--size", "16")
