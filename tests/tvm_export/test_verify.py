"""Exported libraries verify on whole networks; wrong ones are caught with op, index and both values."""

import json

import pytest
import torch
import tvm
from deployed import written
from networks import NETWORKS, images
from programs import binary_network
from schemes import SCHEMES, calibrated, lowered

from hawq.errors import HawqError, UsageError
from hawq.integer import IntegerProgram, ReferenceExecutor
from hawq.qat.lower import PixelScaling
from hawq.runtime.manifest import file_facts
from tvm_export import convolutions, export, expressions, load, verify


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_integer_of_every_tensor_is_equal(name, scheme, asymmetric, tmp_path):
    program = lowered(name, scheme, asymmetric=asymmetric)
    export(program, "llvm", tmp_path, batch=2)
    compiled, batch = load(tmp_path), images(3, seed=7)
    report = verify(program, compiled, batch, until="all")
    assert report.exact
    assert report.tensors == written(program)
    codes = ReferenceExecutor(program).trace(batch)
    assert report.integers == sum(codes[name].numel() for name in report.tensors)
    assert compiled.logits(batch).equal(ReferenceExecutor(program).logits(batch))


def test_accumulators_inside_a_network_are_compared_too(tmp_path):
    program = binary_network()
    export(program, "llvm", tmp_path, batch=2)
    batch = torch.randn(3, *program.input.out.shape, generator=torch.Generator().manual_seed(7))
    report = verify(program, load(tmp_path), batch, until="all")
    assert report.exact
    assert {"stem", "depthwise", "dense", "middle", "sign", "steps"} < set(report.tensors)
    logits = load(tmp_path)(batch)
    assert logits.equal(ReferenceExecutor(program)(batch))
    assert len(logits.unique(dim=0)) == len(batch)


def test_raw_pixels_go_in_as_they_are(tmp_path):
    model = calibrated("Residual")
    program = model.lower(PixelScaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    export(program, "llvm", tmp_path)
    pixels = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert verify(program, load(tmp_path), pixels, until="all").exact
    scaled = (pixels.float() / 255 - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)
    floats = ReferenceExecutor(model.lower()).trace(scaled)["input"]
    folded = ReferenceExecutor(program).trace(pixels)["input"]
    assert int((floats - folded).abs().max()) <= 1  # the two input ops round differently only next to a tie


def test_a_changed_rounding_constant_is_caught(tmp_path, monkeypatch):
    def truncates(value, shift, kind="int64"):
        return tvm.tirx.shift_right(value, shift.astype(kind))

    monkeypatch.setattr(expressions, "rounding_shift", truncates)
    program = lowered("Residual")
    export(program, "llvm", tmp_path)
    report = verify(program, load(tmp_path), images(2, seed=7))
    assert not report.exact
    assert report.mismatch.op == "stem"
    assert report.mismatch.expected == report.mismatch.found + 1
    index = report.mismatch.index
    assert report.mismatch.expected == int(ReferenceExecutor(program).trace(images(2, seed=7))["stem"][index])
    with pytest.raises(HawqError, match=r"op 'stem' at index \(0, .*expected \d+, found \d+"):
        report.raise_if_failed()


def test_a_dropped_bias_is_caught(tmp_path, monkeypatch):
    real = convolutions.offset_bias

    def drops(site, offset):
        return real(site, offset) * (0 if site.op.name == "conv2" else 1)

    monkeypatch.setattr(convolutions, "offset_bias", drops)
    program = lowered("Residual", "uniform4")
    export(program, "llvm", tmp_path)
    report = verify(program, load(tmp_path), images(2, seed=7), until="all")
    assert report.mismatch.op == "conv2"
    assert report.mismatch.expected != report.mismatch.found


def test_until_stops_at_the_op(tmp_path):
    program = lowered("Residual")
    export(program, "llvm", tmp_path)
    compiled = load(tmp_path)
    assert verify(program, compiled, images(1), until="conv1").tensors[-1] == "conv1"
    with pytest.raises(UsageError, match="'conv9': the library has no such op"):
        verify(program, compiled, images(1), until="conv9")


def test_a_library_of_another_program_is_refused(tmp_path):
    export(lowered("Residual"), "llvm", tmp_path)
    with pytest.raises(HawqError, match="another program"):
        verify(lowered("Residual", "uniform4"), load(tmp_path), images(1))


def test_the_same_export_in_the_same_process_loads_fresh(tmp_path):
    first, second = lowered("Residual"), lowered("Branches")
    for program in (first, second):
        export(program, "llvm", tmp_path)
        assert verify(program, load(tmp_path), images(1)).exact


def test_bad_folders_and_images_are_refused(tmp_path):
    with pytest.raises(UsageError, match="hawq export"):
        load(tmp_path)
    program = lowered("Residual")
    export(program, "llvm", tmp_path)
    with pytest.raises(HawqError, match=r"given: torch\.float32, \(1, 3, 8, 8\)"):
        load(tmp_path)(torch.zeros(1, 3, 8, 8))
    (tmp_path / "model.so").write_bytes(b"torn")
    with pytest.raises(HawqError, match=r"is not the file that manifest\.json describes"):
        load(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    facts = {"library": file_facts(tmp_path / "model.so")}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | facts))
    with pytest.raises(HawqError, match="cannot be loaded"):
        load(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": "other"}))
    with pytest.raises(HawqError, match="has format 'other'"):
        load(tmp_path)


def test_unknown_targets_and_options_are_refused(tmp_path):
    program: IntegerProgram = lowered("Residual")
    with pytest.raises(UsageError, match="unknown target 'tpu'; known: cuda, llvm"):
        export(program, "tpu", tmp_path)
    with pytest.raises(UsageError, match="target llvm has no option arch"):
        export(program, "llvm", tmp_path, arch=["sm_80"])
    with pytest.raises(UsageError, match="unknown architecture sm_30"):
        export(program, "cuda", tmp_path, arch=["sm_30"])
