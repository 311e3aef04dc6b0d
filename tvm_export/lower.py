"""Lower an IntegerProgram to an IRModule: one Relax call per kernel, the constants inside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax, tirx

from hawq.errors import UsageError
from hawq.integer import IntegerProgram
from hawq.integer.ops import Op, PixelInput
from tvm_export.backend import Backend, Kernel
from tvm_export.definitions import Site
from tvm_export.fusion import fused
from tvm_export.plans import Plan
from tvm_export.storage import Batch, Storage

__all__ = ["LoweredNetwork", "lower", "sites"]


@dataclass(frozen=True)
class LoweredNetwork:
    """A network ready to compile.

    Attributes:
        module: with the functions `main` (image -> the program's outputs) and `trace` (image -> every tensor, in the
            order of `storage`); both return tuples and call the same kernels.
        kernels: names of the ops that the kernels begin with, in the order of their calls.
        storage: how each tensor that is written lies in memory, by name.
    """

    module: tvm.IRModule
    kernels: tuple[str, ...]
    storage: dict[str, Storage]


def sites(program: IntegerProgram, target: Backend, batch: int | None) -> list[Site]:
    """Return every kernel of a program with the storage of its tensors; batch as for `lower`."""
    storage = {op.name: target.storage(op.out, image=op is program.input) for op in program.ops}
    index = "int32"  # TVM schedules loops of one index type only, and makes all others int32
    alone = {op.name: _site(program, op, storage, _images(batch, index)) for op in program.ops}
    return [
        _joined(program, [alone[op.name] for op in members], _images(batch, index))
        for members in fused(program, lambda op: target.followers(alone[op.name]))
    ]


def _site(program: IntegerProgram, op: Op, storage: Mapping[str, Storage], images: Batch) -> Site:
    constants = {name: tensor.numpy() for name, tensor in program.constants(op).items()}
    return Site(op, tuple(storage[name] for name in op.inputs), storage[op.name], constants, images)


def _joined(program: IntegerProgram, members: Sequence[Site], images: Batch) -> Site:
    """Return the kernel of some ops; what no op outside reads is not written."""
    inside = {site.op.name for site in members}
    outside = {name for op in program.ops if op.name not in inside for name in op.inputs}
    outside.update(output.tensor for output in program.outputs.values())
    head, *followers = (replace(site, kept=site.op.name in outside, batch=images) for site in members)
    return replace(head, followers=tuple(followers))


def _images(batch: int | None, index: str) -> Batch:
    return tirx.Var("images", index) if batch is None else batch


def lower(
    program: IntegerProgram, target: Backend, batch: int | None, plans: Mapping[str, Plan] | None = None
) -> LoweredNetwork:
    """Return the program as one module.

    Args:
        program: validated and certified.
        target: decides storage and schedules.
        batch: images per call, None for any number.
        plans: by the op that a kernel begins with, in place of the default ones.

    Raises:
        UsageError: the target's kernels are made for one batch only.
    """
    if batch is None and not target.takes_any_batch:
        raise UsageError(
            f"one {target.device} library cannot take any batch, its grids and tiles are chosen for one: "
            "give --batch-size a number, and export once for each batch"
        )
    chosen = plans or {}
    placed = [replace(site, plan=chosen.get(site.op.name)) for site in sites(program, target, batch)]
    kernels = [target.kernel(site) for site in placed]
    builder = relax.BlockBuilder()
    functions = [
        builder.add_func(kernel.function, _symbol(site.op.name)) for site, kernel in zip(placed, kernels, strict=True)
    ]
    written = {name: storage for site in placed for name, storage in site.written.items()}
    results = [output.tensor for output in program.outputs.values()]
    for entry, returned in (("main", results), ("trace", list(written))):
        # a variable of its own: functions share none
        images = _images(batch, "int64")
        _emit(builder, entry, images, placed, kernels, functions, returned)
    return LoweredNetwork(builder.finalize(), tuple(site.op.name for site in placed), written)


def _emit(
    builder: relax.BlockBuilder,
    entry: str,
    images: Batch,
    placed: list[Site],
    kernels: list[Kernel],
    functions: list[tvm.ir.GlobalVar],
    returned: Sequence[str],
) -> None:
    image = relax.Var("image", _image_type(placed[0], images))
    with builder.function(entry, [image]):
        with builder.dataflow():
            values: dict[str, relax.Expr] = {}
            for site, kernel, function in zip(placed, kernels, functions, strict=True):
                sources = [values[name] for name, _ in site.reads] or [image]
                # the dtype is named because relax.const narrows int64 to int32 without a word
                constants = [relax.const(array, str(array.dtype)) for array in kernel.constants]
                outs = [relax.TensorType(out.shape(images), out.dtype) for out in site.written.values()]
                call = relax.call_tir(function, [*sources, *constants], outs if len(outs) > 1 else outs[0])
                made = builder.emit(call)
                for index, name in enumerate(site.written):
                    values[name] = builder.emit(relax.TupleGetItem(made, index)) if len(outs) > 1 else made
            result = builder.emit_output(relax.Tuple([values[name] for name in returned]))
        builder.emit_func_output(result)


def _image_type(first: Site, images: Batch) -> relax.TensorType:
    return relax.TensorType((images, *first.out.chw), image_dtype(first.op))


def image_dtype(op: Op) -> str:
    """Return the element type of the image an input op takes."""
    return str(np.dtype(np.uint8)) if isinstance(op, PixelInput) else str(np.dtype(np.float32))


def _symbol(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
