"""A library takes any tensor of the right type, holds its constants once, and is the same bytes every time."""

import hashlib
import json

import pytest
import torch
from kernel_runner import CPUS, backend_for
from networks import images
from programs import logits_of
from schemes import lowered

from hawq.data import Preprocessing
from hawq.errors import HawqError, UsageError
from hawq.files import read_json
from hawq.integer import ReferenceExecutor, TensorType, certify
from hawq.integer import ops as o
from hawq.runtime import devices
from tvm_export import export, fingerprint, load, measure, verify
from tvm_export.cache import KernelCache
from tvm_export.link import Workshop
from tvm_export.llvm import LlvmBackend
from tvm_export.lower import lower

ENTRIES = ("main", "trace")


@pytest.fixture(scope="module")
def program():
    return lowered("Residual")


@pytest.fixture(scope="module")
def folder(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    export(program, "llvm", folder, batch=2)
    return folder


class Recorder:
    """Stand in for the machine that runs a library, and keep what it is given."""

    def __init__(self, machine):
        self.machine, self.given = machine, []

    def __getitem__(self, entry):
        return lambda batch: (self.given.append(batch), self.machine[entry](batch))[1]


def test_unaligned_and_strided_images_are_taken(program, folder):
    compiled, batch = load(folder), images(3)
    compiled._machine = recorder = Recorder(compiled._machine)
    expected = ReferenceExecutor(program)(batch)
    buffer = torch.zeros(batch.numel() + 16)
    shifted = buffer[-buffer.data_ptr() // 4 % 16 + 1 :][: batch.numel()].view(batch.shape).copy_(batch)
    assert shifted.data_ptr() % 64 == 4
    assert torch.equal(compiled(shifted), expected)
    strided = batch.to(memory_format=torch.channels_last)
    assert not strided.is_contiguous()
    assert torch.equal(compiled(strided), expected)
    assert len(recorder.given) == 4  # two calls of batches 2 and 1, the last one filled up
    assert all(given.data_ptr() % 64 == 0 and given.is_contiguous() for given in recorder.given)


def test_results_outlive_the_next_call(folder):
    compiled, (first, second) = load(folder), images(2).split(1)
    kept = compiled.trace(first)
    copies = {name: codes.clone() for name, codes in kept.items()}
    compiled.trace(second)
    assert all(torch.equal(kept[name], copies[name]) for name in copies)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_any_batch_gives_the_same_integers(batch, program, tmp_path):
    export(program, "llvm", tmp_path, batch=batch)
    report = verify(program, load(tmp_path), images(7), until="all")
    assert report.exact
    assert (report.images, report.tensors) == (7, tuple(load(tmp_path).storage))


def test_the_manifest_says_what_the_library_is(program, folder):
    manifest = read_json(folder / "manifest.json", "hawq-library", 4)
    assert manifest["program"] == fingerprint(program)
    assert (manifest["target"], manifest["batch"], manifest["scheme"]) == ("llvm", 2, program.scheme)
    assert manifest["image"] == {"shape": [3, 16, 16], "dtype": "float32"}
    (output,) = program.outputs.values()
    assert manifest["outputs"] == {"logits": {"tensor": output.tensor, "scale": output.scale.tolist()}}
    assert [row["op"] for row in manifest["certificate"]] == [
        op.name for op in program.ops if isinstance(op, o.Conv2d | o.Linear | o.AvgPool2d)
    ]
    assert (manifest["preprocessing"], manifest["class_names"]) == (None, None)
    data = (folder / "model.so").read_bytes()
    assert manifest["library"] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    proof = json.dumps(certify(program).to_json(), sort_keys=True).encode()
    assert manifest["certificate_sha256"] == hashlib.sha256(proof).hexdigest()


def test_the_manifest_tells_how_images_are_prepared_and_classes_called(program, tmp_path):
    how = Preprocessing(16, 18, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic")
    names = [f"class {i}" for i in range(10)]
    export(program, "llvm", tmp_path, preprocessing=how, class_names=names)
    manifest = read_json(tmp_path / "manifest.json", "hawq-library", 4)
    assert Preprocessing.from_json(manifest["preprocessing"]) == how
    assert manifest["class_names"] == names
    with pytest.raises(UsageError, match="9 class names for 10 logits"):
        export(program, "llvm", tmp_path, class_names=names[:9])


def test_the_manifest_lists_the_instruction_sets_of_the_cpu(program, tmp_path):
    export(program, "llvm", tmp_path, mcpu="haswell")
    manifest = read_json(tmp_path / "manifest.json", "hawq-library", 4)
    assert manifest["mcpu"] == "haswell"
    assert manifest["features"] == ["sse4.1", "sse4.2", "avx", "avx2", "fma", "f16c", "bmi2"]


def test_a_library_for_another_cpu_is_refused_before_it_runs(program, tmp_path, monkeypatch):
    export(program, "llvm", tmp_path, mcpu="x86-64-v3")
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset({"sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c"}))
    with pytest.raises(HawqError, match="holds code for x86-64-v3, and this CPU lacks bmi2: export with --mcpu"):
        load(tmp_path)
    monkeypatch.setattr(devices, "cpu_flags", frozenset)  # a system that does not tell
    assert load(tmp_path)(images(1)).shape == (1, 10)


@pytest.mark.parametrize("cpu", CPUS)
def test_a_library_demands_the_instruction_that_it_uses(cpu, program, tmp_path):
    """And every integer of it is right."""
    backend = backend_for(cpu)
    export(program, "llvm", tmp_path, mcpu=cpu)
    assert verify(program, load(tmp_path), images(3), until="all").exact
    features = read_json(tmp_path / "manifest.json", "hawq-library", 4)["features"]
    assert not backend.instruction.feature or backend.instruction.feature in features


def test_the_fingerprint_follows_every_integer(program):
    changed = dict(program.tensors)
    changed["stem.bias"] = changed["stem.bias"].clone()
    changed["stem.bias"][-1] += 1
    other = type(program)(program.arch, program.scheme, program.ops, changed, program.outputs)
    assert fingerprint(other) != fingerprint(program)


def test_the_same_program_gives_the_same_bytes(program, folder, tmp_path):
    again = tmp_path / "again"
    for jobs, kept in ((1, "new"), (3, "new"), (2, "newer")):  # the second export finds every kernel of the first
        export(program, "llvm", again, batch=2, workshop=Workshop(KernelCache(tmp_path / kept), jobs))
        for name in ("model.so", "manifest.json"):
            assert (again / name).read_bytes() == (folder / name).read_bytes()
    assert sorted(path.name for path in again.iterdir()) == ["manifest.json", "model.so"]  # nothing left over


def test_both_entries_share_kernels_and_constants(program, tmp_path):
    both = lower(program, LlvmBackend(), 1).module
    kernels = [name for name in both.get_global_vars() if name.name_hint not in ENTRIES]
    assert len(kernels) <= len(program.ops)
    size = 1 << 20
    weight = torch.randint(-127, 128, (1024, size // 1024), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    ops = (
        o.QuantizeInput(name="in", inputs=(), out=TensorType((1024, 1, 1), 8, True), lo=-128, hi=127),
        o.Flatten(name="flat", inputs=("in",), out=TensorType((1024,), 8, True)),
        o.Linear(name="out", inputs=("flat",), out=TensorType((1024,), 32, True), lo=-(2**31), hi=2**31 - 1),
    )
    tensors = {"out.weight": weight, "out.bias": torch.zeros(1024, dtype=torch.int32)}
    large = type(program)("net", "uniform8", ops, tensors, logits_of(ops, torch.ones(1)))
    assert size < export(large, "llvm", tmp_path).stat().st_size < 1.5 * size


def test_latency_is_that_of_the_call():
    clock = iter(range(10**6))
    latency = measure(lambda: next(clock), seconds=0.05, warmup=2, most=7)
    assert latency.runs == 7
    assert next(clock) == 9  # two calls to warm up
    assert 0 < latency.p10_ms <= latency.median_ms <= latency.p90_ms < 50
    assert json.dumps(vars(latency))
    assert measure(lambda: None, seconds=0.0, warmup=0).runs == 1
