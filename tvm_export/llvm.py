"""Compile for CPUs with LLVM."""

from dataclasses import dataclass, replace
from typing import Any

import tvm
from tvm.relax.backend.cpu_generic import pipeline
from tvm.target import codegen

from hawq.integer import TensorType
from hawq.integer.ops import Add, Limit, Op
from tvm_export.backend import register_backend
from tvm_export.convolutions import dense_product
from tvm_export.definitions import Site, define
from tvm_export.instructions import BLOCK, best_instruction
from tvm_export.kernels.cpu import schedule
from tvm_export.link import CompiledNetwork, Workshop, link, object_code
from tvm_export.plans import Plan, plans
from tvm_export.storage import Storage, round_up

__all__ = ["LlvmBackend"]


_EXTENSIONS = ("sse4.1", "sse4.2", "avx", "avx2", "fma", "f16c", "bmi2", "avx512f", "avx512bw", "avx512cd", "avx512dq",
               "avx512vl", "avx512vnni", "avxvnni", "avx512vbmi", "i8mm", "sve")  # fmt: skip
"""Instruction sets that LLVM may use of its own accord and that not every CPU has."""


@dataclass(frozen=True)
class CpuKernel:
    """A scheduled function and its constants."""

    function: tvm.tirx.PrimFunc
    constants: tuple[Any, ...]


@register_backend("llvm")
class LlvmBackend:
    """Store one code a byte, channels in blocks of 16; multiply with the fastest instruction that the CPU has.

    Args:
        mcpu: LLVM's name of the CPU; by default this machine's.
    """

    device = "cpu"
    takes_any_batch = True

    def __init__(self, mcpu: str | None = None) -> None:
        self.mcpu = mcpu or codegen.llvm_get_system_cpu()
        self.target = tvm.target.Target({"kind": "llvm", "mcpu": self.mcpu})
        self.instruction = best_instruction(lambda name: bool(codegen.llvm_cpu_has_features(name, self.target)))

    def storage(self, kind: TensorType, *, image: bool) -> Storage:
        """Return bytes, 16-bit or 32-bit words; those of an image are padded to what is multiplied at once."""
        return Storage(kind, round_up(kind.shape[0], self.instruction.depth if image else BLOCK))

    def followers(self, _: Site) -> tuple[type[Op], ...]:
        """Return Add and Limit: requantizing a residual stream, too, takes longer than a pass of its own (Zen 5)."""
        return (Add, Limit)

    def kernel(self, site: Site) -> CpuKernel:
        """Return the kernel of an op and its followers."""
        found = self.plans(site) if site.plan is None else [site.plan]
        planned = replace(site, instruction=self.instruction, plan=found[0] if found else None)
        definition = define(planned)
        return CpuKernel(
            schedule(definition, self.instruction, planned.plan), tuple(array for _, array in definition.constants)
        )

    def plans(self, site: Site) -> list[Plan]:
        """Return the plans of a dense product; other kernels have none."""
        product = dense_product(replace(site, instruction=self.instruction))
        return [] if product is None else plans(product, self.instruction)

    def compile(self, module: tvm.IRModule, workshop: Workshop) -> CompiledNetwork:
        """Compile a lowered network."""

        def build(kernel: tvm.IRModule) -> tvm.runtime.Module:
            return object_code(kernel, self.target, workshop.cache)

        return link(module, self.target, pipeline, build, workshop, batch=1)

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says about the target."""
        offered = codegen.llvm_get_cpu_features(self.target)
        return {"target": "llvm", "mcpu": self.mcpu, "features": [name for name in _EXTENSIONS if name in offered]}
