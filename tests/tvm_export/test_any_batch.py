"""One library takes any number of images a call, and every integer is the reference's."""

import pytest
import tvm
from networks import images
from programs import binary_network
from schemes import lowered

from hawq.errors import UsageError
from hawq.files import read_json
from hawq.integer import ReferenceExecutor
from hawq.runtime import open_library
from hawq.runtime.calls import calls
from tvm_export import export, load, memory, verify
from tvm_export.cache import KernelCache
from tvm_export.link import Workshop
from tvm_export.llvm import LlvmBackend
from tvm_export.lower import lower

CASES = [
    ("Residual", "uniform8", None), ("Residual", "uniform8", "x86-64-v3"), ("Residual", "uniform8", "x86-64-v2"),
    ("Residual", "uniform4", None), ("Branches", "mixed", None), ("Inverted", "uniform4", None),
    ("Dense", "mixed", None), ("Gated", "uniform8", None), ("Decoder", "uniform8", None),
]  # fmt: skip


class Recorder:
    """Stand in for the machine that runs a library, and count the images of each call."""

    def __init__(self, machine):
        self.machine, self.counts = machine, []

    def __getitem__(self, entry):
        return lambda batch: (self.counts.append(len(batch)), self.machine[entry](batch))[1]


@pytest.mark.parametrize(("name", "scheme", "mcpu"), CASES)
def test_every_integer_is_the_references_whatever_the_batch(name, scheme, mcpu, tmp_path):
    program = lowered(name, scheme)
    export(program, "llvm", tmp_path, batch=None, mcpu=mcpu)
    compiled = load(tmp_path)
    compiled._machine = recorder = Recorder(compiled._machine)
    for count in (1, 3, 8, 3):
        batch = images(count, seed=count)
        assert verify(program, compiled, batch, until="all").exact
        assert compiled(batch).equal(ReferenceExecutor(program)(batch))
    assert recorder.counts == [1, 1, 3, 3, 8, 8, 3, 3]


def test_accumulators_and_thresholds_take_any_batch(tmp_path):
    program = binary_network()
    export(program, "llvm", tmp_path, batch=None)
    assert verify(program, load(tmp_path), images(5)[:, :2, :6, :5].contiguous(), until="all").exact


def test_more_images_than_there_is_room_for_are_cut_and_none_is_added(tmp_path, monkeypatch):
    program = lowered("Residual")
    export(program, "llvm", tmp_path, batch=1)
    activations = read_json(tmp_path / "manifest.json", "hawq-library", 4)["memory"]["activations"]
    monkeypatch.setattr(memory, "_ROOM", 3 * (activations + images(1).nbytes))
    export(program, "llvm", tmp_path, batch=None)
    manifest = read_json(tmp_path / "manifest.json", "hawq-library", 4)
    assert (manifest["batch"], manifest["most"], manifest["memory"]) == (None, 3, {"activations": 3 * activations})

    compiled, batch = load(tmp_path), images(7)
    expected = ReferenceExecutor(program)(batch)
    compiled._machine = recorder = Recorder(compiled._machine)
    assert compiled(batch).equal(expected)
    assert verify(program, compiled, batch, until="all").exact
    assert recorder.counts == [3, 3, 1, 3, 3, 1]
    library = open_library(tmp_path)
    assert library(batch.numpy()).tolist() == expected.tolist()
    with pytest.raises(RuntimeError):  # what is called without the loader is refused, too
        library.run_batch(images(4).numpy())
    assert library.run_batch(images(3).numpy()).tolist() == ReferenceExecutor(program)(images(3)).tolist()


def test_a_network_larger_than_the_room_takes_an_image_a_call(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_ROOM", 1)
    program = lowered("Branches")
    export(program, "llvm", tmp_path, batch=None)
    assert load(tmp_path).most == 1
    assert verify(program, load(tmp_path), images(2)).exact


def test_a_second_export_compiles_nothing_and_writes_the_same_bytes(tmp_path):
    program, written = lowered("Residual"), []
    for run in range(3):
        cache = KernelCache(tmp_path / "kernels" if run < 2 else tmp_path / "others")
        library = export(program, "llvm", tmp_path / str(run), batch=None, workshop=Workshop(cache))
        written.append((library.read_bytes(), (library.parent / "manifest.json").read_bytes()))
        assert (cache.made == 0, cache.found == 0) == (run == 1, run != 1)
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize("name", ["Residual", "Inverted", "Branches"])
def test_kernels_check_no_bound_that_those_of_one_batch_do_not(name):
    def checks(batch):
        counts = {}
        for variable, function in lower(lowered(name), LlvmBackend(), batch).module.functions.items():
            if isinstance(function, tvm.tirx.PrimFunc):
                text = function.script()
                counts[variable.name_hint] = text.count("T.where"), text.count("if_then_else")
        return counts

    assert checks(None) == checks(3)


def test_a_target_that_needs_a_number_says_so(tmp_path):
    with pytest.raises(UsageError, match=r"cuda library cannot take any batch.*give --batch-size a number"):
        export(lowered("Residual"), "cuda", tmp_path, batch=None)
    assert not list(tmp_path.iterdir())


def test_calls_hold_every_image_once():
    assert list(calls(7, None, 3)) == [(slice(0, 3), 0), (slice(3, 6), 0), (slice(6, 7), 0)]
    assert list(calls(7, 3, 3)) == [(slice(0, 3), 0), (slice(3, 6), 0), (slice(6, 7), 2)]
    assert list(calls(2, None, 2)) == [(slice(0, 2), 0)]
    assert list(calls(0, None, 2)) == []
