"""Write the text of device functions: headers, a struct of constants that says what they are to compute, a call."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm.backend.cuda.op import cuda_func_call

__all__ = ["SHARED_BYTES", "DeviceFunction", "constants_text"]

SHARED_BYTES = "hawq.shared_bytes"
"""Attribute of a function: dynamic shared memory of a block of its first kernel; the assembler does not tell it."""

_TYPES = {"uint8": "unsigned char", "int8": "signed char", "uint16": "unsigned short", "int16": "short"}


def constants_text(dtype: str, constants: Mapping[str, int | bool]) -> str:
    """Return the body of a struct: the element type Out, and a constant kName for every name."""

    def line(name: str, value: int | bool) -> str:
        kind = "bool" if isinstance(value, bool) else "int" if value < 2**31 else "unsigned"
        return f"static constexpr {kind} k{name} = {str(value).lower()};"

    lines = [f"typedef {_TYPES.get(dtype, 'int')} Out;", *(line(name, value) for name, value in constants.items())]
    return "\n  ".join(lines)


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
