"""Lower an IntegerProgram to an IRModule: one Relax call per op, the constants inside."""

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from hawq.integer import IntegerProgram
from hawq.integer.ops import Op, PixelInput
from tvm_export.backend import Backend, Kernel
from tvm_export.definitions import Site
from tvm_export.storage import Storage

__all__ = ["LoweredNetwork", "lower", "sites"]


@dataclass(frozen=True)
class LoweredNetwork:
    """A network ready to compile.

    Attributes:
        module: with the functions `main` (image -> logits) and `trace` (image -> every tensor, in program order).
        storage: how each tensor lies in memory, by name.
    """

    module: tvm.IRModule
    storage: dict[str, Storage]


def sites(program: IntegerProgram, target: Backend, batch: int) -> list[Site]:
    """Return every op of a program with the storage of its tensors."""
    storage = {op.name: target.storage(op.out, image=op is program.input) for op in program.ops}
    return [
        Site(
            op,
            tuple(storage[name] for name in op.inputs),
            storage[op.name],
            {name: tensor.numpy() for name, tensor in program.constants(op).items()},
            batch,
        )
        for op in program.ops
    ]


def lower(program: IntegerProgram, target: Backend, batch: int) -> LoweredNetwork:
    """Return the program as one module.

    Args:
        program: validated and certified.
        target: decides storage and schedules.
        batch: images per call.
    """
    placed = sites(program, target, batch)
    kernels = {site.op.name: target.kernel(site) for site in placed}
    builder = relax.BlockBuilder()
    functions = {name: builder.add_func(kernel.function, _symbol(name)) for name, kernel in kernels.items()}
    for entry, keep_all in (("main", False), ("trace", True)):
        _emit(builder, entry, placed, kernels, functions, keep_all)
    return LoweredNetwork(builder.finalize(), {site.op.name: site.out for site in placed})


def _emit(
    builder: relax.BlockBuilder,
    entry: str,
    placed: list[Site],
    kernels: dict[str, Kernel],
    functions: dict[str, tvm.ir.GlobalVar],
    keep_all: bool,
) -> None:
    image = relax.Var("image", _image_type(placed[0]))
    with builder.function(entry, [image]):
        with builder.dataflow():
            values: dict[str, relax.Var] = {}
            for site in placed:
                sources = [values[name] for name in site.op.inputs] or [image]
                # the dtype is named because relax.const narrows int64 to int32 without a word
                constants = [relax.const(array, str(array.dtype)) for array in kernels[site.op.name].constants]
                out = relax.TensorType(site.out.shape(site.batch), site.out.dtype)
                call = relax.call_tir(functions[site.op.name], [*sources, *constants], out)
                values[site.op.name] = builder.emit(call)
            result = relax.Tuple(list(values.values())) if keep_all else values[placed[-1].op.name]
            output = builder.emit_output(result)
        builder.emit_func_output(output)


def _image_type(first: Site) -> relax.TensorType:
    return relax.TensorType((first.batch, *first.out.chw), image_dtype(first.op))


def image_dtype(op: Op) -> str:
    """Return the element type of the image an input op takes."""
    return str(np.dtype(np.uint8)) if isinstance(op, PixelInput) else str(np.dtype(np.float32))


def _symbol(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
