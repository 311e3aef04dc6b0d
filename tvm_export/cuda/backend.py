"""Compile for NVIDIA GPUs."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import tvm
import tvm_ffi
from tvm.relax.backend.cuda import pipeline

from hawq.errors import HawqError, UsageError
from hawq.integer import TensorType
from hawq.integer.ops import Add, Op, Requantize
from tvm_export.backend import register_backend
from tvm_export.cuda.conv_mma import conv_mma, suits
from tvm_export.cuda.depthwise import depthwise, is_depthwise
from tvm_export.cuda.device import ARCHITECTURES, present_architecture
from tvm_export.cuda.elementwise import elementwise, has_vectors
from tvm_export.cuda.resources import KernelResources
from tvm_export.cuda.schedule import schedule
from tvm_export.cuda.source import SHARED_BYTES
from tvm_export.cuda.toolchain import MachineCode, compile_source, compiler_version, enable_cuda_modules
from tvm_export.definitions import Site, define
from tvm_export.link import CompiledNetwork, Workshop, link
from tvm_export.plans import Plan
from tvm_export.storage import Storage, round_up

__all__ = ["CudaBackend"]

_BATCH = 8
"""Kernels for one run of the compiler: alone, each takes 0.4 s for the headers and 0.1 s for itself."""

_KERNEL = re.compile(r"__global__ void __launch_bounds__\([^)]*\) (\w+)\(")


@dataclass(frozen=True)
class CudaKernel:
    """A scheduled function and its constants."""

    function: tvm.tirx.PrimFunc
    constants: tuple[Any, ...]


@register_backend("cuda")
class CudaBackend:
    """Pack codes of at most 4 bits two a byte; convolve on integer tensor cores.

    Args:
        arch: GPU architectures, all in one library; this machine's GPU by default, else sm_80.
        cuda_graph: launch the network as one CUDA graph, captured when it first runs; only the kernels that read the
            image or write the result are launched one by one, for their memory is the caller's.

    Attributes:
        kernels: what each kernel compiled last takes.

    Raises:
        UsageError: an unknown architecture.
    """

    device = "cuda"
    takes_any_batch = False  # launches have known grids, and tiles are chosen by the batch

    def __init__(self, arch: Sequence[str] | None = None, cuda_graph: bool = False) -> None:
        self.architectures = tuple(dict.fromkeys(arch or (present_architecture() or "sm_80",)))
        unknown = [name for name in self.architectures if name not in ARCHITECTURES]
        if unknown:
            raise UsageError(f"unknown architecture {', '.join(unknown)}; allowed are {', '.join(ARCHITECTURES)}")
        self.cuda_graph = cuda_graph
        self.kernels: list[KernelResources] = []

    def storage(self, kind: TensorType, *, image: bool) -> Storage:
        """Return rows of whole vectors of 16 bytes; bytes of an image's few channels by 4."""
        channels = kind.shape[0]
        if kind.bits <= 4:
            return Storage(kind, round_up(channels, 32), packed=True)
        return Storage(kind, round_up(channels, 4 if image and channels <= 4 else 16))

    def followers(self, site: Site) -> tuple[type[Op], ...]:
        """Return the ops that a kernel written for vectors of channels computes behind its own."""
        return (Add, Requantize) if suits(site) or is_depthwise(site) or has_vectors(site) else ()

    def plans(self, site: Site) -> tuple[Plan, ...]:
        """Return none: tiles are chosen by estimates (tvm_export.cuda.tiles)."""
        return ()

    def kernel(self, site: Site) -> CudaKernel:
        """Return the kernel of an op and its followers.

        Raises:
            HawqError: a tensor is too large for the kernels' 32-bit indices.
        """
        for storage in (*dict(site.reads).values(), site.out, *site.written.values()):
            codes = math.prod((site.batch, *storage.chw[1:], storage.channels))
            if codes >= 2**31:
                raise HawqError(
                    f"op {site.op.name!r}: a batch of {site.batch} makes a tensor of {codes} codes, and CUDA kernels "
                    "index at most 2^31; export with a smaller --batch"
                )
        if suits(site):
            return CudaKernel(*conv_mma(site, self.architectures))
        if is_depthwise(site):
            return CudaKernel(*depthwise(site))
        if has_vectors(site):
            return CudaKernel(*elementwise(site))
        definition = define(site)
        return CudaKernel(schedule(definition), tuple(array for _, array in definition.constants))

    def compile(self, module: tvm.IRModule, workshop: Workshop) -> CompiledNetwork:
        """Compile a lowered network to machine code for every architecture.

        Raises:
            HawqError: there is no CUDA compiler, or it failed.
        """
        enable_cuda_modules()
        self.kernels = []
        compiler = compiler_version()
        dynamic = {f"{name.name_hint}_kernel": _shared_bytes(f) for name, f in module.functions.items()}

        # the text is plain CUDA that selects instructions by architecture, so one compilation serves all of them
        def machine_code(code: str, *_: Any) -> bytes:
            source = f"{compiler}\n{' '.join(self.architectures)}\n{code}"
            kernels = len(set(_KERNEL.findall(str(code))))
            kept = workshop.cache.fetch(
                source, lambda: compile_source(str(code), self.architectures).to_bytes(), kernels
            )
            made = MachineCode.from_bytes(kept)
            self.kernels += [
                replace(kernel, shared_bytes=kernel.shared_bytes + dynamic.get(kernel.name, 0))
                for kernel in made.kernels
            ]
            return made.image

        tvm_ffi.register_global_func("tvm_callback_cuda_compile", machine_code, override=True)
        target = tvm.target.Target({"kind": "cuda", "arch": self.architectures[0]}, host="llvm")
        with tvm.transform.PassContext(config={"relax.backend.use_cuda_graph": self.cuda_graph}):
            return link(module, target, pipeline, lambda kernels: tvm.tirx.build(kernels, target), workshop, _BATCH)

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says about the target, and about the kernels compiled last."""
        kernels = [asdict(kernel) for kernel in sorted(self.kernels)]  # they were compiled in any order
        return {
            "target": "cuda",
            "architectures": list(self.architectures),
            "cuda_graph": self.cuda_graph,
            "kernels": kernels,
        }


def _shared_bytes(function: Any) -> int:
    attributes = function.attrs
    return int(attributes[SHARED_BYTES]) if attributes and SHARED_BYTES in attributes else 0
