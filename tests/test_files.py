"""The files of a run: replaced whole or not at all, and recognised when they are broken."""

import json
import stat

import pytest
import torch

from hawq.errors import HawqError, UsageError
from hawq.files import read_json, read_tensors, write_atomically, write_json, write_tensors
from hawq.runs import RunDir, slug


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, "kind", 1, {"value": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_atomically(path, fail)
    assert read_json(path, "kind", 1)["value"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_values_json_cannot_hold_leave_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, "kind", 1, {"value": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, "kind", 1, {"value": float("nan")})
    assert read_json(path, "kind", 1)["value"] == 1


def test_folders_are_made_and_files_are_readable_by_others(tmp_path):
    path = tmp_path / "deep" / "er" / "a.json"
    write_json(path, "kind", 1, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_json_is_headed_by_format_and_version_and_equal_content_gives_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_json(tmp_path / name, "kind", 3, {"x": [1, 2]})
    assert list(json.loads((tmp_path / "a").read_text())) == ["format", "version", "x"]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"format": "kind", "ver', "is not valid JSON"),
        ("\x00\x01", "is not valid JSON"),
        ("[1]", "has format None, expected 'kind'"),
        ('{"format": "other", "version": 1}', "has format 'other', expected 'kind'"),
        ('{"format": "kind", "version": 3}', "has version 3 of kind; this hawq reads up to 2"),
        ('{"format": "kind"}', "has version None"),
    ],
)
def test_a_broken_or_foreign_json_is_refused(tmp_path, text, says):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(HawqError) as error:
        read_json(path, "kind", 2)
    assert says in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_json(tmp_path / "none.json", "kind", 1)
    with pytest.raises(UsageError, match="does not exist"):
        read_tensors(tmp_path / "none.safetensors")


def test_tensors_come_back_and_their_order_does_not_matter(tmp_path):
    tensors = {"b": torch.arange(6, dtype=torch.int8).view(2, 3), "a": torch.tensor([1.5, -0.0])}
    write_tensors(tmp_path / "x", tensors)
    write_tensors(tmp_path / "y", dict(reversed(tensors.items())))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    found = read_tensors(tmp_path / "x")
    assert found["b"].dtype == torch.int8
    assert torch.equal(found["b"], tensors["b"])
    assert torch.equal(found["a"], tensors["a"])


def test_views_of_one_storage_are_kept_apart(tmp_path):
    base = torch.arange(6.0)
    write_tensors(tmp_path / "x", {"all": base, "part": base[2:4], "turned": base.view(2, 3).T})
    found = read_tensors(tmp_path / "x")
    assert torch.equal(found["part"], torch.tensor([2.0, 3.0]))
    assert torch.equal(found["turned"], base.view(2, 3).T)


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_a_torn_tensor_file_is_refused(tmp_path, keep):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.arange(10)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(HawqError, match="it may be cut off"):
        read_tensors(path)


def test_names_become_file_names():
    assert slug("torchvision:resnet18") == "torchvision-resnet18"
    assert slug("bops0.5+size=8MB") == "bops0.5-size=8MB"
    assert slug("nets/my.py:make") == "nets-my.py-make"
    run = RunDir.of("torchvision:resnet18", "digits")
    assert str(run.program("bops0.5")) == "runs/torchvision-resnet18-digits/bops0.5/program.json"
    assert str(run.export("bops0.5", "llvm")) == "runs/torchvision-resnet18-digits/bops0.5/export/llvm"
