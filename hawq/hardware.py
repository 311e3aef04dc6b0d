"""Name the device a latency was measured on, so that a table is not used for another one by mistake."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from hawq.errors import HawqError, UsageError

__all__ = ["Device", "cpu_flags", "present_device"]

_CPU_INFO = Path("/proc/cpuinfo")
_RELEVANT = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""CPU features that decide how fast integer kernels run."""


@dataclass(frozen=True)
class Device:
    """Say what latency depends on besides the code.

    Attributes:
        name: of the CPU or GPU model.
        features: instruction sets of a CPU that matter to integer kernels, or the architecture of a GPU.
        cores: logical CPUs, or multiprocessors; told, but not compared.
    """

    name: str
    features: tuple[str, ...]
    cores: int

    def matches(self, other: "Device") -> bool:
        """Tell whether code runs equally fast on another device, for an equal number of threads."""
        return (self.name, self.features) == (other.name, other.features)

    def __str__(self) -> str:
        """Return for example `AMD EPYC 9654 (avx2, avx512_vnni)`."""
        return f"{self.name} ({', '.join(self.features)})" if self.features else self.name


def present_device(target: str) -> Device:
    """Return the device that libraries of a target run on, on this machine.

    Args:
        target: `llvm` or `cuda`.

    Raises:
        UsageError: no such target.
        HawqError: the target is `cuda`, and there is no NVIDIA GPU.
    """
    if target == "llvm":
        return _cpu()
    if target == "cuda":
        return _gpu()
    raise UsageError(f"unknown target {target!r}; known: cuda, llvm")


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of this machine's CPU, by Linux's names; none where Linux does not tell."""
    facts = _cpu_facts()
    return frozenset((facts.get("flags") or facts.get("Features") or "").split())


def _cpu() -> Device:
    name, flags = _cpu_facts().get("model name") or platform.processor() or platform.machine(), cpu_flags()
    return Device(name, tuple(flag for flag in _RELEVANT if flag in flags), os.cpu_count() or 1)


def _cpu_facts() -> dict[str, str]:
    facts: dict[str, str] = {}
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text().splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    return facts


def _gpu() -> Device:
    import torch

    if not torch.cuda.is_available():
        raise HawqError(
            "target cuda needs an NVIDIA GPU, and this machine shows none: "
            "work on a machine that has one, or use --target llvm"
        )
    facts = torch.cuda.get_device_properties(0)
    return Device(facts.name, (f"sm_{facts.major}{facts.minor}",), facts.multi_processor_count)
