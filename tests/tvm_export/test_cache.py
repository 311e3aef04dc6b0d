"""Kernels compiled once are found again, by every process, unless anything about them or their file has changed."""

import dataclasses
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from networks import images
from programs import logits_of
from schemes import lowered

from hawq.integer import IntegerProgram, ReferenceExecutor, TensorType
from hawq.integer import ops as o
from tvm_export import export, load, verify
from tvm_export.cache import KernelCache, default_folder
from tvm_export.link import Workshop, batches


def exported(program, folder, kept, **options):
    """Export a program with the kernels kept in a folder; return how many were found and made."""
    cache = KernelCache(kept)
    export(program, options.pop("target", "llvm"), folder, workshop=Workshop(cache, jobs=2), **options)
    return cache.found, cache.made


def changed(program, name):
    """Return the program with another clamp in one op."""
    ops = [dataclasses.replace(op, hi=op.hi - 1) if op.name == name else op for op in program.ops]
    return type(program)(program.arch, program.scheme, tuple(ops), program.tensors, program.outputs)


def test_only_what_changed_is_compiled_again(tmp_path):
    program, kept = lowered("Residual"), tmp_path / "kernels"
    found, made = exported(program, tmp_path / "first", kept)
    assert (found, made > 8) == (0, True)
    assert made == len(list(kept.iterdir()))
    assert exported(program, tmp_path / "second", kept) == (made, 0)
    assert exported(changed(program, "conv1"), tmp_path / "third", kept) == (made - 1, 1)
    assert exported(program, tmp_path / "third", kept, batch=2) == (0, made)
    assert exported(program, tmp_path / "third", kept, mcpu="x86-64-v3") == (0, made)


def test_other_weights_take_the_same_kernels(tmp_path):
    program, kept = lowered("Residual"), tmp_path / "kernels"
    _, made = exported(program, tmp_path / "first", kept)
    tensors = {name: -tensor if name.endswith(".weight") else tensor for name, tensor in program.tensors.items()}
    negated = type(program)(program.arch, program.scheme, program.ops, tensors, program.outputs)
    assert exported(negated, tmp_path / "second", kept) == (made, 0)
    batch = images(3)
    for each, folder in ((program, "first"), (negated, "second")):
        assert verify(each, load(tmp_path / folder), batch, until="all").exact
    assert not ReferenceExecutor(program)(batch).equal(ReferenceExecutor(negated)(batch))


def test_cuda_kernels_are_kept_for_their_architectures(tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc to build for several architectures")
    kept, options = tmp_path / "kernels", {"target": "cuda", "arch": ["sm_80"]}
    ops = (
        o.QuantizeInput(name="in", inputs=(), out=TensorType((32, 1, 1), 8, True), lo=-128, hi=127),
        o.Flatten(name="flat", inputs=("in",), out=TensorType((32,), 8, True)),
        o.Linear(name="out", inputs=("flat",), out=TensorType((8,), 32, True), lo=-(2**31), hi=2**31 - 1),
    )
    tensors = {"out.weight": torch.ones(8, 32, dtype=torch.int8), "out.bias": torch.zeros(8, dtype=torch.int32)}
    program = IntegerProgram("net", "uniform8", ops, tensors, logits_of(ops, torch.ones(8)))
    assert exported(program, tmp_path / "first", kept, **options) == (0, 3)
    assert exported(program, tmp_path / "second", kept, **options) == (3, 0)
    for name in ("model.so", "manifest.json"):  # what the assembler said of each kernel is kept as well
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    found, made = exported(changed(program, "in"), tmp_path / "third", kept, **options)
    assert (found + made, made > 0) == (3, True)  # others of its batch as well
    assert exported(program, tmp_path / "third", kept, target="cuda", arch=["sm_90"]) == (0, 3)


@pytest.mark.parametrize("mean", [1, 3, 8])
def test_a_changed_kernel_leaves_other_batches_alone(mean):
    kernels = [f"kernel {index}" for index in range(200)]
    cut = batches(kernels, mean)
    assert [kernel for part in cut for kernel in kernels[part]] == kernels
    assert 100 <= len(cut) * mean <= 400
    whole = [kernels[part] for part in cut]
    for index in range(len(kernels)):
        for other in ([], ["another"], ["another", "and one more"]):  # removed, changed, added
            edited = [*kernels[:index], *other, *kernels[index + 1 :]]
            lost = [part for part in whole if part not in [edited[p] for p in batches(edited, mean)]]
            assert len(lost) <= 2
    assert batches([], mean) == []


@pytest.mark.parametrize("damage", [lambda d: d[:-7], lambda d: b"", lambda d: d[:60] + b"?" + d[61:], lambda d: d[1:]])
def test_a_damaged_entry_is_made_anew(damage, tmp_path):
    cache, code = KernelCache(tmp_path), bytes(range(256))
    assert cache.fetch("kernel", lambda: code) == code
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert cache.fetch("kernel", lambda: code) == code
    assert (cache.found, cache.made, entry.read_bytes()) == (0, 2, whole)
    assert cache.fetch("kernel", lambda: b"not called") == code


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    cache = KernelCache(tmp_path, limit=3500)
    for age, name in enumerate("abc"):
        cache.fetch(name, lambda name=name: name.encode() * 1000)
        (newest,) = set(tmp_path.iterdir()) - {path for path in tmp_path.iterdir() if path.stat().st_mtime < 1000}
        os.utime(newest, (age, age))
    cache.fetch("a", lambda: b"not called")  # used again, so the oldest is b
    cache.fetch("d", lambda: b"d" * 1000)
    assert len(list(tmp_path.iterdir())) == 4
    cache.trim()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3500
    made = cache.made
    for name in "acd":
        cache.fetch(name, lambda: b"not called")
    assert cache.made == made
    assert cache.fetch("b", lambda: b"again") == b"again"


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = KernelCache(tmp_path / "file" / "kernels")
    assert [cache.fetch("kernel", lambda: b"code") for _ in range(2)] == [b"code"] * 2
    cache.trim()
    assert (cache.found, cache.made) == (0, 2)


def fill(folder, seed):
    """Fetch the same kernels as others do, in an order of one's own, with a limit that keeps half of them."""
    cache, names = KernelCache(folder, limit=20 * 1100), [str(i) for i in range(40)]
    order = [names[(i * 7 + seed * 11) % 40] for i in range(200)]
    right = []
    for name in order:
        right.append(cache.fetch(name, lambda name=name: name.encode() * 500) == name.encode() * 500)
        cache.trim()
    return all(right)


def test_processes_share_a_folder(tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        assert all(pool.map(fill, [tmp_path] * 4, range(4)))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]  # no half-written files


def test_the_folder_is_that_of_the_variable_then_of_the_users_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("HAWQ_CACHE", str(tmp_path / "named"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert default_folder() == tmp_path / "named"
    monkeypatch.delenv("HAWQ_CACHE")
    assert default_folder() == tmp_path / "caches" / "hawq" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "hawq" / "kernels"
