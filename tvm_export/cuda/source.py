"""Write the text of device functions: headers, a struct of constants that says what they are to compute, a call."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm.backend.cuda.op import cuda_func_call
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from tvm_export.storage import Storage

__all__ = ["SHARED_BYTES", "DeviceFunction", "codes", "constants_text", "element", "start_threads"]

SHARED_BYTES = "hawq.shared_bytes"
"""Attribute of a function: dynamic shared memory of a block of its first kernel; the assembler does not tell it."""

_TYPES = {"uint8": "unsigned char", "int8": "signed char", "uint16": "unsigned short", "int16": "short"}


def element(storage: Storage) -> str:
    """Return the C++ type of an element of a stored tensor."""
    return _TYPES.get(storage.dtype, "int")


def codes(storage: Storage, count: int) -> str:
    """Return the C++ type of `count` neighbouring codes of a stored tensor (vectors.cuh)."""
    flags = (str(flag).lower() for flag in (storage.packed, storage.type.signed))
    return f"hawq::Codes<{element(storage)}, {', '.join(flags)}, {count}>"


def constants_text(types: Mapping[str, str], constants: Mapping[str, int | bool]) -> str:
    """Return the body of a struct: types by their names, and a constant kName for every name."""

    def line(name: str, value: int | bool) -> str:
        kind = "bool" if isinstance(value, bool) else "int" if value < 2**31 else "unsigned"
        return f"static constexpr {kind} k{name} = {str(value).lower()};"

    named = [f"typedef {text} {name};" for name, text in types.items()]
    return "\n  ".join([*named, *(line(name, value) for name, value in constants.items())])


@dataclass(frozen=True)
class DeviceFunction:
    """A function on the device.

    Attributes:
        headers: files of this folder that it needs, in the order of their inclusion.
        constants: body of the struct P.
        parameters: of the function, in C++.
        body: its statement, which may speak of P.
    """

    headers: tuple[str, ...]
    constants: str
    parameters: str
    body: str

    @property
    def name(self) -> str:
        """A name that no function with another meaning has."""
        return f"hawq_{hashlib.sha256((self.constants + self.body).encode()).hexdigest()[:16]}"

    @property
    def text(self) -> str:
        """The source, which may be repeated."""
        folder = Path(__file__).parent
        headers = "\n".join((folder / header).read_text() for header in self.headers)
        return (
            f"{headers}\n#ifndef GUARD_{self.name}\n#define GUARD_{self.name}\n"
            f"struct P_{self.name} {{\n  {self.constants}\n}};\n"
            f"__device__ __forceinline__ void {self.name}({self.parameters}) {{\n"
            f"  using P = P_{self.name};\n  {self.body}\n}}\n#endif\n"
        )

    def __call__(self, *buffers: Any) -> Any:
        """Return the call of the function, as an expression of TensorIR."""
        return cuda_func_call(self.name, *buffers, source_code=self.text)


def start_threads(
    function: DeviceFunction, tensors: Sequence[tuple[str, tuple[int, ...], str]], threads: int, block: int
) -> tvm.tirx.PrimFunc:
    """Return a function that starts a row of independent threads.

    Args:
        function: takes the tensors in their order.
        tensors: name, shape and element type of each; the last is the output.
        threads: how many at least.
        block: threads of a block.
    """
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        arguments = [T.arg(name, T.buffer(shape, dtype)) for name, shape, dtype in tensors]
        with T.sblock("root"):  # Relax looks for a reshape in functions of one input, and expects a block there
            *read, written = (buffer[tuple(slice(0, size) for size in buffer.shape)] for buffer in arguments)
            T.reads(*read)
            T.writes(written)
            with T.launch_thread("blockIdx.x", -(-threads // block)), T.launch_thread("threadIdx.x", block):
                T.evaluate(function(*(buffer.data for buffer in arguments)))
    return builder.get()
