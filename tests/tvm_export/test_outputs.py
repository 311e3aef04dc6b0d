"""Networks with several outputs, maps among them, give all of them everywhere, each integer the same."""

import json

import numpy as np
import pytest
import torch
from deployed import simulation_error, written
from networks import OUTPUTS, SIZE, build, images
from PIL import Image
from schemes import SCHEMES, calibrated

from hawq.data import Preprocessing
from hawq.errors import HawqError
from hawq.files import read_json
from hawq.integer import IntegerProgram, ReferenceExecutor
from hawq.runtime import open_library
from hawq.runtime.command import RunRequest, describe, run_images
from hawq.runtime.manifest import FORMAT, VERSION
from tvm_export import export, load, verify

HOW = Preprocessing(SIZE, None, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a program and the folder of its library."""
    program = calibrated("Detector").lower()
    folder = tmp_path_factory.mktemp("library")
    export(program, "llvm", folder, batch=2, preprocessing=HOW)
    return program, folder


@pytest.mark.parametrize("scheme", SCHEMES)
def test_evaluation_is_the_saved_program(scheme, tmp_path):
    model = calibrated("Detector", scheme)
    model.lower().save(tmp_path / "program.json")
    executor = ReferenceExecutor(IntegerProgram.load(tmp_path / "program.json"))
    batch = images(3, seed=7)
    found, expected = model(batch), executor.logits(batch)
    assert tuple(found) == OUTPUTS
    trace = executor.trace(batch)
    for name, output in executor.program.outputs.items():
        assert found[name].equal(expected[name])
        assert executor(batch)[name].equal(trace[output.tensor])


def test_values_are_close_to_the_float_network():
    model, batch = calibrated("Detector"), images(32, seed=9)
    with torch.no_grad():
        found, expected = model(batch), build("Detector")(batch)
    for name, value in found.items():
        first, *rest = name.split(".")
        real = expected[first][int(rest[0])] if rest else expected[first]
        assert value.shape == real.shape
        assert float((value - real).square().mean() / real.var()) < 0.01, name  # a wrong scale gives errors near 1
    assert simulation_error(model) < 1e-4


def test_every_integer_of_the_library_is_equal(exported):
    program, folder = exported
    compiled, batch = load(folder), images(3, seed=7)
    report = verify(program, compiled, batch, until="all")
    assert report.exact
    assert report.tensors == written(program)
    short = verify(program, compiled, batch)
    assert short.exact
    assert short.tensors == tuple(output.tensor for output in program.outputs.values())
    values = ReferenceExecutor(program).logits(batch)
    for name, found in compiled.logits(batch).items():
        assert found.equal(values[name])


def test_the_loader_gives_the_same(exported, tmp_path):
    program, folder = exported
    library, batch = open_library(folder), images(3, seed=7)
    reference = ReferenceExecutor(program)
    integers, expected, values = library(batch.numpy()), reference(batch), reference.logits(batch)
    assert tuple(integers) == OUTPUTS
    for name, found in integers.items():
        assert found.tolist() == expected[name].tolist()
        assert library.logits(integers)[name].tolist() == values[name].tolist()
    assert read_json(folder / "manifest.json", FORMAT, VERSION)["outputs"]["map"]["tensor"] == "down"


def test_images_are_run_without_classes(exported, tmp_path):
    _, folder = exported
    Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(tmp_path / "black.png")
    request = RunRequest(folder, (tmp_path / "black.png",), repeat=1, logits=tmp_path / "all.npz")
    document = run_images(request)
    assert json.loads(json.dumps(document)) == document
    (image,) = document["images"]
    stored = np.load(tmp_path / "all.npz")
    assert tuple(stored) == tuple(image["outputs"]) == OUTPUTS
    assert image["outputs"]["map"]["shape"] == list(stored["map"].shape[1:]) == [8, 4, 4]
    values = open_library(folder).logits({name: stored[name] for name in stored})["boxes.0"]
    assert image["outputs"]["boxes.0"]["highest"] == float(values.max())
    assert any(line.startswith("  boxes.0 (4, 8, 8): ") for line in describe(document))


def test_classes_have_names_only_where_there_is_one_output(exported, tmp_path):
    program, _ = exported
    with pytest.raises(HawqError, match="needs a program with one output, and it has 7"):
        export(program, "llvm", tmp_path, class_names=["a"])
