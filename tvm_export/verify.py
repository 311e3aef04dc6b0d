"""Compare a library with the reference executor, integer by integer."""

from dataclasses import dataclass

from torch import Tensor

from hawq.errors import HawqError, UsageError
from hawq.integer import IntegerProgram, ReferenceExecutor
from hawq.runtime.calls import calls
from tvm_export.build import CompiledModel, fingerprint

__all__ = ["Mismatch", "VerifyReport", "verify"]

_ALL = "all"

_AT_ONCE = 16
"""Images compared at once with a library that takes any number; the reference holds all their tensors."""


@dataclass(frozen=True)
class Mismatch:
    """The first integer of an op that differs.

    Attributes:
        op: name of the op.
        index: (image, channel, row, column) or (image, feature).
        expected: the reference executor's integer.
        found: the library's.
        differing: how many integers of the op differ.
        total: how many it has.
    """

    op: str
    index: tuple[int, ...]
    expected: int
    found: int
    differing: int
    total: int

    def __str__(self) -> str:
        return (
            f"op {self.op!r} at index {self.index}: expected {self.expected}, found {self.found} "
            f"({self.differing} of {self.total} integers differ)"
        )


@dataclass(frozen=True)
class VerifyReport:
    """What was compared and what differed.

    Attributes:
        images: number of images.
        tensors: names of the tensors compared.
        integers: number of integers compared.
        mismatch: the first op that differs, None if all are equal.
    """

    images: int
    tensors: tuple[str, ...]
    integers: int
    mismatch: Mismatch | None

    @property
    def exact(self) -> bool:
        """Whether every integer was equal."""
        return self.mismatch is None

    def raise_if_failed(self) -> None:
        """Raise on a mismatch.

        Raises:
            HawqError: names the op, the index and both values.
        """
        if self.mismatch is not None:
            raise HawqError(f"the library differs from the integer program: {self.mismatch}")


def verify(program: IntegerProgram, compiled: CompiledModel, images: Tensor, until: str | None = None) -> VerifyReport:
    """Run the program's reference executor and the library on the same images.

    Args:
        program: the definition of the result.
        compiled: the library.
        images: as the program takes them, (N, C, H, W).
        until: compare every tensor up to this op ("all": every one) that the library writes to memory; by default only
            the outputs, and the others when those differ, to name the op where it begins.

    Raises:
        UsageError: the library writes no tensor of that name.
        HawqError: the library was made from another program.
    """
    names = list(compiled.storage)
    if until not in (None, _ALL, *names):
        inside = [op.name for op in program.ops if op.name == until]
        why = "computes it inside another kernel" if inside else "has no such op"
        raise UsageError(f"{until!r}: the library {why}; compare up to {', '.join(names[:8])}, ... or 'all'")
    if compiled.manifest["program"] != fingerprint(program):
        raise HawqError("the library was made from another program than this one; run `hawq export` again")
    reference = ReferenceExecutor(program)
    outputs = {name: output.tensor for name, output in program.outputs.items()}
    compared = tuple(outputs.values() if until is None else names[: names.index(until) + 1 if until in names else None])
    integers = 0
    for part, _ in calls(len(images), compiled.batch, compiled.batch or min(_AT_ONCE, compiled.most)):
        start, batch = part.start, images[part]
        if until is None:
            expected, found = ({outputs[name]: codes for name, codes in run(batch).items()}
                               for run in (reference.integers, compiled.integers))  # fmt: skip
        else:
            expected, found = reference.trace(batch), compiled.trace(batch)
        mismatch = _first_mismatch(compared, expected, found, start)
        if mismatch is not None and until is None:
            mismatch = _first_mismatch(names, reference.trace(batch), compiled.trace(batch), start) or mismatch
        if mismatch is not None:
            return VerifyReport(start + len(batch), compared, integers, mismatch)
        integers += sum(expected[name].numel() for name in compared)
    return VerifyReport(len(images), compared, integers, None)


def _first_mismatch(
    names: tuple[str, ...] | list[str], expected: dict[str, Tensor], found: dict[str, Tensor], start: int
) -> Mismatch | None:
    for name in names:
        differs = expected[name] != found[name]
        if bool(differs.any()):
            position = tuple(int(i) for i in differs.nonzero()[0])
            values = int(expected[name][position]), int(found[name][position])
            index = (start + position[0], *position[1:])
            return Mismatch(name, index, *values, int(differs.sum()), differs.numel())
    return None
