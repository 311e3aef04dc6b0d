"""Write the text of device functions, with a struct of constants that says what they are to compute; start them."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm.backend.cuda.op import cuda_func_call
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from tvm_export.storage import Storage

__all__ = ["SHARED_BYTES", "Argument", "DeviceFunction", "Launch", "codes", "constants_text", "start", "tensor"]

SHARED_BYTES = "hawq.shared_bytes"
"""Attribute of a function: dynamic shared memory of a block of its first kernel; the assembler does not tell it."""

_TYPES = {"uint8": "unsigned char", "int8": "signed char", "uint16": "unsigned short", "int16": "short"}


def codes(storage: Storage, count: int | str) -> str:
    """Return the C++ type of `count` neighbouring codes of a stored tensor (vectors.cuh)."""
    flags = (str(flag).lower() for flag in (storage.packed, storage.type.signed))
    return f"hawq::Codes<{_TYPES.get(storage.dtype, 'int')}, {', '.join(flags)}, {count}>"


def constants_text(constants: Mapping[str, int | bool]) -> str:
    """Return declarations for the body of a struct: a constant kName for every name."""

    def line(name: str, value: int | bool) -> str:
        kind = "bool" if isinstance(value, bool) else "int" if value < 2**31 else "unsigned"
        return f"static constexpr {kind} k{name} = {str(value).lower()};"

    return "\n  ".join(line(name, value) for name, value in constants.items())


@dataclass(frozen=True)
class Argument:
    """A tensor that a device function takes.

    Attributes:
        name: of the parameter.
        shape: in memory.
        dtype: of its elements.
        written: whether it is an output.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    written: bool = False

    @property
    def parameter(self) -> str:
        """Its declaration in C++."""
        return f"{'' if self.written else 'const '}{'int' if self.dtype == 'int32' else 'void'}* {self.name}"


def tensor(name: str, storage: Storage, batch: int, *, written: bool = False) -> Argument:
    """Return a stored tensor as an argument."""
    return Argument(name, storage.shape(batch), storage.dtype, written)


@dataclass(frozen=True)
class DeviceFunction:
    """A function on the device.

    Attributes:
        headers: files of this folder that it needs, in the order of their inclusion.
        constants: body of the struct P.
        arguments: its parameters; where it needs shared memory, `shared` stands before them.
        body: its statements, which may speak of P.
    """

    headers: tuple[str, ...]
    constants: str
    arguments: tuple[Argument, ...]
    body: str

    @property
    def name(self) -> str:
        """A name that no function with another meaning has."""
        return f"hawq_{hashlib.sha256((self.constants + self.body).encode()).hexdigest()[:16]}"

    def text(self, *, shared: bool) -> str:
        """Return the source, which may be repeated."""
        folder = Path(__file__).parent
        headers = "\n".join((folder / header).read_text() for header in self.headers)
        parameters = [*(["void* shared"] if shared else []), *(argument.parameter for argument in self.arguments)]
        return (
            f"{headers}\n#ifndef GUARD_{self.name}\n#define GUARD_{self.name}\n"
            f"struct P_{self.name} {{\n  {self.constants}\n}};\n"
            f"__device__ __forceinline__ void {self.name}({', '.join(parameters)}) {{\n"
            f"  using P = P_{self.name};\n  {self.body}\n}}\n#endif\n"
        )


@dataclass(frozen=True)
class Launch:
    """A kernel to be started.

    Attributes:
        function: what a thread does.
        blocks: of the grid, along x and y.
        threads: of a block.
        shared_bytes: dynamic shared memory of a block.
        resident: blocks that a multiprocessor is to hold at least; 0 leaves it to the compiler.
    """

    function: DeviceFunction
    blocks: tuple[int, int]
    threads: int
    shared_bytes: int = 0
    resident: int = 0

    def emit(self, buffers: Mapping[str, Any]) -> None:
        """Add the launch to the function being built, over buffers by the names of the arguments."""
        with ExitStack() as frames:
            for axis, extent in (("blockIdx.x", self.blocks[0]), ("blockIdx.y", self.blocks[1])):
                if axis == "blockIdx.x" or extent > 1:
                    frames.enter_context(T.launch_thread(axis, extent))
            frames.enter_context(T.launch_thread("threadIdx.x", self.threads))
            if self.resident:
                frames.enter_context(T.attr(0, "tirx.launch_bounds_min_blocks_per_sm", self.resident))
            taken = [buffers[argument.name] for argument in self.function.arguments]
            if self.shared_bytes:
                shared = T.alloc_buffer((self.shared_bytes,), "uint8", scope="shared.dyn")
                taken = [IRBuilder.name("shared", shared), *taken]
            source = self.function.text(shared=bool(self.shared_bytes))
            data = (buffer.data for buffer in taken)
            T.evaluate(cuda_func_call(self.function.name, *data, source_code=source))


def start(
    arguments: Sequence[Argument], launches: Sequence[Launch], workspace: Argument | None = None
) -> tvm.tirx.PrimFunc:
    """Return a function that starts kernels one after another.

    Args:
        arguments: of the function.
        launches: take arguments of the function, or the workspace, by their names.
        workspace: memory that the kernels share and nobody else sees.
    """
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        shared = {SHARED_BYTES: launches[0].shared_bytes} if launches[0].shared_bytes else {}
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, **shared})
        buffers = {a.name: T.arg(a.name, T.buffer(a.shape, a.dtype)) for a in arguments}
        with T.sblock("root"):  # Relax looks for a reshape in functions of one input, and expects a block there
            regions = {a.name: buffers[a.name][tuple(slice(0, size) for size in a.shape)] for a in arguments}
            T.reads(*(regions[a.name] for a in arguments if not a.written))
            T.writes(*(regions[a.name] for a in arguments if a.written))
            if workspace:
                allocated = T.alloc_buffer(workspace.shape, workspace.dtype)
                buffers[workspace.name] = IRBuilder.name(workspace.name, allocated)
            for launch in launches:
                launch.emit(buffers)
    return builder.get()
