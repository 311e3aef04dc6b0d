"""Kernels hold every op once, in an order in which they can run, and every integer they write is right."""

import pytest
from networks import images
from schemes import lowered

from hawq.integer import ops as o
from tvm_export import export, load, verify
from tvm_export.fusion import fused
from tvm_export.llvm import LlvmBackend

KINDS = {"none": (), "Add": (o.Add,), "Requantize": (o.Requantize,), "both": (o.Add, o.Requantize)}
HEADS = (o.Conv2d, o.Linear, o.MaxPool2d, o.AvgPool2d, o.Add)


@pytest.fixture(params=KINDS)
def kinds(request):
    return KINDS[request.param]


def behind(kinds):
    """Let ops of some kinds stand behind every head."""
    return lambda head: kinds if isinstance(head, HEADS) else ()


def kernels_of(program, kinds):
    return [[op.name for op in ops] for ops in fused(program, behind(kinds))]


def test_every_op_is_in_one_kernel_that_finds_its_inputs(kinds):
    program = lowered("Residual")
    kernels = fused(program, behind(kinds))
    assert sorted(op.name for ops in kernels for op in ops) == sorted(op.name for op in program.ops)
    assert (max(map(len, kernels)) > 1) == bool(kinds)
    known = set()
    for ops in kernels:
        assert {type(op) for op in ops[1:]} <= set(kinds)
        for op in ops:
            assert set(op.inputs) <= known
            known.add(op.name)


def test_an_add_joins_the_later_of_two_convolutions():
    program = lowered("Residual")
    add = next(op for op in program.ops if isinstance(op, o.Add))
    order = [op.name for op in program.ops]
    later = max(add.inputs, key=order.index)
    assert [later, add.name] in kernels_of(program, (o.Add,))


def test_an_add_stays_alone_where_the_kernel_of_its_convolution_takes_none():
    program = lowered("Residual")
    add = next(op for op in program.ops if isinstance(op, o.Add))
    later = max(add.inputs, key=[op.name for op in program.ops].index)
    kernels = fused(program, lambda head: () if head.name == later else (o.Add,))
    earlier = next(name for name in add.inputs if name != later)
    assert [earlier, add.name] in [[op.name for op in ops] for ops in kernels]


@pytest.mark.parametrize("scheme", ["uniform8", "mixed"])
def test_kernels_with_followers_are_exact(tmp_path, monkeypatch, kinds, scheme):
    monkeypatch.setattr(LlvmBackend, "followers", lambda self, site: behind(kinds)(site.op))
    program = lowered("Residual", scheme)
    export(program, "llvm", tmp_path, batch=2)
    compiled = load(tmp_path)
    inside = {op.name for ops in fused(program, behind(kinds)) for op in ops} - set(compiled.storage)
    assert bool(inside) == (o.Add in kinds)
    report = verify(program, compiled, images(2, seed=3), until="all")
    assert report.exact
    assert set(report.tensors) == {op.name for op in program.ops} - inside
