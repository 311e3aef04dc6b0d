"""Read from the assembler's report what each kernel takes of a multiprocessor."""

import re
from dataclasses import dataclass

__all__ = ["KernelResources", "parse_report"]

_KERNEL = re.compile(r"Compiling entry function '(?P<name>\w+)' for '(?P<architecture>sm_\w+)'")
_MEMORY = re.compile(
    r"(?P<stack_bytes>\d+) bytes stack frame, "
    r"(?P<spill_store_bytes>\d+) bytes spill stores, (?P<spill_load_bytes>\d+) bytes spill loads"
)
_USED = re.compile(r"Used (?P<registers>\d+) registers(?:.*?(?P<shared_bytes>\d+) bytes smem)?")


@dataclass(frozen=True, order=True)
class KernelResources:
    """What one kernel takes on one architecture.

    Attributes:
        architecture: `sm_80` and the like.
        name: of the kernel.
        registers: 32-bit registers of a thread.
        shared_bytes: shared memory of a block.
        stack_bytes: local memory of a thread, spilled registers and arrays alike.
        spill_store_bytes: instructions that spill registers, in bytes of what they store.
        spill_load_bytes: instructions that fetch them again.
    """

    architecture: str
    name: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int


def parse_report(report: str) -> tuple[KernelResources, ...]:
    """Return every kernel in a verbose report of ptxas, as nvcc and NVRTC pass it on, by architecture and name."""
    found = []
    for kernel in re.split(r"(?=Compiling entry function)", report)[1:]:
        head, memory, used = (pattern.search(kernel) for pattern in (_KERNEL, _MEMORY, _USED))
        if head and memory and used:
            figures = {name: int(text or 0) for name, text in {**memory.groupdict(), **used.groupdict()}.items()}
            found.append(KernelResources(**head.groupdict(), **figures))
    return tuple(sorted(found))
