"""Compile the kernels of a network in small batches and link what comes out, so that unchanged ones are kept."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import tvm
from tvm import relax
from tvm.relax import vm_build

from hawq.runtime.threads import cores
from tvm_export.cache import KernelCache
from tvm_export.memory import MemoryPlan, plan_memory

__all__ = ["CompiledNetwork", "Workshop", "batches", "link", "object_code"]


@dataclass(frozen=True)
class Workshop:
    """Where kernels are compiled.

    Attributes:
        cache: of kernels compiled before; by default the user's.
        jobs: compilers at work at the same time, by default one for each core.
    """

    cache: KernelCache = field(default_factory=KernelCache)
    jobs: int = field(default_factory=cores)


@dataclass(frozen=True)
class CompiledNetwork:
    """A network as machine code.

    Attributes:
        executable: of TVM's virtual machine.
        memory: of all tensors between image and logits.
    """

    executable: tvm.runtime.Executable
    memory: MemoryPlan


def link(
    module: tvm.IRModule,
    target: tvm.target.Target,
    pipeline: ModuleType,
    build: Callable[[tvm.IRModule], tvm.runtime.Module],
    workshop: Workshop,
    batch: int,
) -> CompiledNetwork:
    """Plan the memory of a lowered network, compile its kernels and put them together.

    Args:
        module: scheduled kernels, and Relax functions that call them; no library is dispatched to, nothing is fused.
        target: of the kernels.
        pipeline: Relax's passes for the kind of target, a module of `tvm.relax.backend`.
        build: compiles a batch of kernels; called from several threads.
        workshop: says how many at once; its cache is trimmed at the end.
        batch: kernels in a batch, on average.
    """
    with target:
        placed, memory = plan_memory(tvm.transform.Sequential(pipeline.dataflow_lower_passes(target))(module))
        lowered = tvm.transform.Sequential(pipeline.finalize_passes(target))(placed)
    builder = relax.ExecBuilder()
    # these steps of tvm.compile know only one module of kernels
    kernels = list(vm_build._filter_tir(vm_build._vmcodegen(builder, lowered)).functions.items())
    cut = batches([tvm.ir.save_json(function) for _, function in kernels], batch)
    modules = [tvm.IRModule(dict(kernels[part])) for part in cut]
    with ThreadPoolExecutor(workshop.jobs) as pool:
        built = list(pool.map(build, modules))
    workshop.cache.trim()
    linked = relax._ffi_api.VMLink(builder, target, None, built, {})
    return CompiledNetwork(vm_build.VMExecutable(linked), memory)


def batches(kernels: Sequence[str], mean: int) -> list[slice]:
    """Cut a list of kernels into batches: a changed kernel changes its own batch, at most one beside it, and no other.

    Args:
        kernels: their source.
        mean: kernels in a batch, on average: a batch ends at every kernel whose hash is divisible by it.
    """
    hashes = (int.from_bytes(hashlib.sha256(kernel.encode()).digest()) for kernel in kernels)
    ends = [index for index, number in enumerate(hashes, start=1) if number % mean == 0 or index == len(kernels)]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def object_code(module: tvm.IRModule, target: tvm.target.Target, cache: KernelCache) -> tvm.runtime.Module:
    """Return a module of one kernel for a CPU as an object file to link."""
    (name,) = (variable.name_hint for variable in module.get_global_vars())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.o"

        def compiled() -> bytes:
            tvm.tirx.build(module, target).write_to_file(str(path))
            return path.read_bytes()

        path.write_bytes(cache.fetch(f"{target}\n{tvm.ir.save_json(module)}", compiled))
        return tvm.runtime.load_static_library(str(path), [name])
