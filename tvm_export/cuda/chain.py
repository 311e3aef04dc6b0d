"""Say what becomes of codes in a kernel: ops behind its own compute from them in registers, what is kept is written.

A head that is not pointwise hands its codes to `store`, a function whose text is put together here; a pointwise head
is computed like the ops behind it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hawq.integer import ops as o
from tvm_export.cuda.source import Argument, codes, constants_text, tensor
from tvm_export.definitions import Site
from tvm_export.expressions import byte_table
from tvm_export.storage import Storage

__all__ = ["HEADERS", "Chain", "is_pointwise", "limits"]

HEADERS = ("vectors.cuh", "pointwise.cuh")
"""What the text of a chain needs."""

_FUNCTIONS: dict[type[o.Op], str] = {
    o.Add: "add",
    o.Mul: "multiply",
    o.Requantize: "requantize",
    o.Table: "look_up",
}
"""Ops that need one code of each input for a code of the output, and their functions in pointwise.cuh."""

_VECTOR_BITS = 128
"""Of the widest loads and stores."""


def is_pointwise(site: Site) -> bool:
    """Tell whether an op needs one code of each input for a code of the output, and has a function for it."""
    return type(site.op) in _FUNCTIONS


def limits(op: Any) -> dict[str, int | bool]:
    """Return the constants that clamp of pointwise.cuh asks for."""
    return {"Zero": op.out.zero_point, "Lo": op.lo, "Hi": op.hi}


@dataclass(frozen=True)
class _Link:
    """What an op adds to a kernel: tensors it reads, constants, a struct inside P, statements."""

    inputs: tuple[Argument, ...]
    constants: Mapping[str, np.ndarray]
    struct: str
    statements: tuple[str, ...]


def _link(site: Site, index: int, made: Mapping[str, str]) -> _Link:
    """Return what computes `code<index>` from variables the kernel has made, by tensor, and from memory."""
    inputs, loads, values = [], [], []
    for letter, name, source in zip("ab", site.op.inputs, site.inputs, strict=False):
        here = f"{letter}{index}"
        values.append(made.get(name, f"{here}_codes"))
        if name not in made:
            inputs.append(tensor(here, source, site.batch))
            shared = math.prod(site.out.chw[1:]) // math.prod(source.chw[1:])
            place = _place(source, f"(pixel / {shared})" if shared > 1 else "pixel")
            loads.append(f"const auto {here}_codes = {codes(source, 'kCount')}::load({here}, {place});")
    looks_up = isinstance(site.op, o.Table)
    given = {"table": byte_table(site)} if looks_up else {name: site.constants[name] for name in site.op.constants}
    constants = {f"{name}{index}": np.ascontiguousarray(array) for name, array in given.items()}
    zeros = {f"Zero{letter}": source.type.zero_point for letter, source in zip("AB", site.inputs, strict=False)}
    call = f"hawq::{_FUNCTIONS[type(site.op)]}<P::Op{index}, {codes(site.out, 'kCount')}>"
    return _Link(
        tuple(inputs),
        constants,
        f"struct Op{index} {{\n  {constants_text({**zeros, **({} if looks_up else limits(site.op))})}\n  }};",
        (*loads, f"const auto code{index} = {call}({', '.join([*values, *constants])});"),
    )


@dataclass(frozen=True)
class Chain:
    """What a kernel does with codes: those its own op makes, or, if that is pointwise, those it reads.

    Attributes:
        site: the kernel.
    """

    site: Site

    @property
    def _members(self) -> tuple[Site, ...]:
        return (self.site, *self.site.followers)

    @cached_property
    def _links(self) -> dict[int, _Link]:
        """What every pointwise op adds, by its place in the kernel."""
        links, made = {}, {}
        for index, member in enumerate(self._members):
            if is_pointwise(member):
                links[index] = _link(member, index, made)
            made[member.op.name] = f"code{index}"
        return links

    def constants(self, own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the constants of the kernel by argument: those given, of a head that is not pointwise, come first."""
        return dict(own) | {name: array for link in self._links.values() for name, array in link.constants.items()}

    def arguments(self, own: Mapping[str, np.ndarray]) -> tuple[Argument, ...]:
        """Return the arguments of the kernel: what it reads, constants, what it writes.

        Args:
            own: constants of a head that is not pointwise.
        """
        inputs = [] if is_pointwise(self.site) else [tensor("x", self.site.inputs[0], self.site.batch)]
        inputs += [argument for link in self._links.values() for argument in link.inputs]
        constants = [Argument(name, array.shape, str(array.dtype)) for name, array in self.constants(own).items()]
        kept = [(index, member) for index, member in enumerate(self._members) if member.kept]
        outs = [tensor(f"y{index}", member.out, member.batch, written=True) for index, member in kept]
        return (*inputs, *constants, *outs)

    @property
    def stored(self) -> int:
        """Channels that each of its tensors stores; what some store beyond them is padding."""
        return min(storage.channels for storage in self._storages)

    @property
    def vector(self) -> int:
        """Codes to compute at once: 16 bytes of the widest tensor, and whole vectors of each."""
        widest = max(4 if storage.packed else 8 * np.dtype(storage.dtype).itemsize for storage in self._storages)
        return math.gcd(_VECTOR_BITS // widest, *(storage.channels for storage in self._storages))

    @property
    def _storages(self) -> list[Storage]:
        read = [source for member in self._members if is_pointwise(member) for source in member.inputs]
        return [*read, *(member.out for member in self._members)]

    @property
    def structs(self) -> str:
        """What P holds for it: Y, the storage of the first op's result as Codes, and the constants of the ops."""
        own = f"template <int kCount> using Y = {codes(self.site.out, 'kCount')};"
        return "\n  ".join([own, *(link.struct for link in self._links.values())])

    @property
    def store(self) -> str:
        """The declaration of a function, `store`, that takes codes of a head that is not pointwise."""
        guard = [f"if (channel >= {self.stored}) return;"] if self.stored < self.site.out.channels else []
        head = ["constexpr int kCount = decltype(code0)::kCount;", *guard]
        return _lines("const auto store = [=](auto code0, int pixel, int channel) {", [*head, *self._statements], "};")

    @property
    def whole(self) -> str:
        """The statement that computes everything, where the head is pointwise."""
        head = ["constexpr int kCount = P::kCodes;"]
        return _lines("hawq::for_vector<P>([=](int pixel, int channel) {", [*head, *self._statements], "});")

    @property
    def _statements(self) -> list[str]:
        lines: list[str] = []
        for index, member in enumerate(self._members):
            lines += self._links[index].statements if index in self._links else ()
            if member.kept:
                lines.append(f"code{index}.store(y{index}, {_place(member.out)});")
        return lines


def _place(storage: Storage, pixel: str = "pixel") -> str:
    return f"1LL * {pixel} * {storage.channels} + channel"


def _lines(first: str, inner: list[str], last: str) -> str:
    return "\n    ".join([first, *inner]) + f"\n  {last}"
