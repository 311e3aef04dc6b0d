"""Run the CUDA source that TVM generates on the CPU, kernel by kernel."""

import ctypes
import mmap
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from torch import Tensor

from hawq.integer import IntegerProgram
from tvm_export.backend import Kernel
from tvm_export.cuda.backend import CudaBackend
from tvm_export.cuda.toolchain import enable_cuda_modules
from tvm_export.definitions import Site
from tvm_export.lower import sites

_HEADER = Path(__file__).parent / "cuda_emulator.h"
_KERNEL = re.compile(r'extern "C" __global__ void[^(]*\([\d, ]+\) (\w+)\(([^)]*)\) \{')
_SHARED = re.compile(r"extern __shared__ __align__\(\d+\) uchar (\w+)\[\];")
_SANITIZE = ("signed-integer-overflow", "alignment", "shift-exponent")
_ALIGNMENT, _NOISE, _PROT_NONE = 64, 0xA5, 0


def cuda_source(functions: dict[str, tvm.tirx.PrimFunc]) -> str:
    """Return the CUDA text of scheduled functions; the kernel of `f` is called `f_kernel`."""
    enable_cuda_modules()
    found: list[str] = []

    def capture(code: object, *_: object) -> bytes:
        found.append(str(code))
        return b"not compiled"

    tvm_ffi.register_global_func("tvm_callback_cuda_compile", capture, override=True)
    target = tvm.target.Target({"kind": "cuda", "arch": "sm_80"}, host="llvm")
    module = tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items()})
    with target:
        tvm.compile(module, target)
    return "\n".join(found)


@dataclass(frozen=True)
class Launch:
    """One of the kernels a function starts: the extent of every thread axis, and the bytes of dynamic shared memory."""

    extents: dict[str, int]
    shared_bytes: int = 0


def launches(function: tvm.tirx.PrimFunc) -> list[Launch]:
    """Return the kernels that a function starts, in order."""
    text = function.script()
    bound = {axis: int(extent) for extent, axis in re.findall(r'thread_binding\((\d+), thread="([\w.]+)"\)', text)}
    if bound:
        return [Launch(bound)]
    found = []
    for part in re.split(r'(?=T\.launch_thread\("blockIdx\.x")', text)[1:]:
        extents = {axis: int(extent) for axis, extent in re.findall(r'launch_thread\("([\w.]+)", (\d+)\)', part)}
        shared = re.search(r'T\.alloc_buffer\(\((\d+),\), "uint8", scope="shared\.dyn"\)', part)
        found.append(Launch(extents, int(shared[1]) if shared else 0))
    return found


def workspaces(function: tvm.tirx.PrimFunc) -> dict[str, np.ndarray]:
    """Return the memory that a function's kernels share, by name, full of noise."""
    found = re.findall(r'(\w+) = T\.alloc_buffer\(\((\d+),\), "int32"\)', function.script())
    return {name: np.full(int(size), 0x5A5A5A5A, np.int32) for name, size in found}


class FencedArray:
    """A copy of an array right before a page that must not be touched, in memory full of noise."""

    def __init__(self, array: np.ndarray) -> None:
        size = -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, room + mmap.PAGESIZE)
        whole = np.frombuffer(self._memory, np.uint8)
        whole[:] = _NOISE
        start = room - size
        self.array = whole[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        self.array[...] = array
        libc, fence = ctypes.CDLL(None, use_errno=True), ctypes.c_void_p(whole.ctypes.data + room)
        if libc.mprotect(fence, ctypes.c_size_t(mmap.PAGESIZE), _PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")


class Emulator:
    """CUDA source compiled for the CPU, with the branches of one GPU architecture."""

    def __init__(self, source: str, arch: str, folder: Path) -> None:
        if shutil.which("g++") is None:
            pytest.skip("needs g++ to run CUDA kernels on the CPU")
        self._arch = arch
        (folder / "cuda.h").write_text("")  # the generated source includes it and needs nothing of it
        runners, self._arguments = "", {}
        for name, parameters in dict(_KERNEL.findall(source)).items():
            types = [re.match(r"\s*(.*?\*)", p)[1] for p in parameters.split(",")]
            self._arguments[name] = [re.search(r"(\w+?)_ptr", p)[1] for p in parameters.split(",")]
            passed = ", ".join(f"({kind})p[{i}]" for i, kind in enumerate(types))
            runners += (
                f'extern "C" int run_{name}(void** p, int x, int y, int block, void* shared, bool eager) '
                f"{{ return emulator::run_grid(x, y, block, shared, eager, [=] {{ {name}({passed}); }}); }}\n"
            )
        source = _SHARED.sub(r"char* \1 = emulator::dynamic_shared;", source)
        code, library = folder / "kernels.cpp", folder / f"{arch}.so"
        code.write_text(f'#include "{_HEADER}"\n{source}\n{runners}')
        flags = [f"-DHAWQ_ARCH={arch.removeprefix('sm_')}0", "-DHAWQ_EMULATED", f"-I{folder}"]
        checks = [f"-fsanitize={','.join(_SANITIZE)}", "-fsanitize-undefined-trap-on-error"]
        command = ["g++", "-O1", "-w", "-shared", "-fPIC", "-std=c++17", *flags, *checks, str(code), "-o", str(library)]
        subprocess.run(command, check=True)
        self._library = ctypes.CDLL(str(library))

    def run(
        self, kernel: str, launch: Launch, arguments: dict[str, np.ndarray], *, eager: bool = False
    ) -> dict[str, np.ndarray]:
        """Launch one kernel and return its arguments as it leaves them.

        Args:
            kernel: its name.
            launch: its size.
            arguments: by name.
            eager: do asynchronous copies where they begin; else only where the thread waits for them.
        """
        fenced = {name: FencedArray(arguments[name]) for name in self._arguments[kernel]}
        pointers = [memory.array.ctypes.data for memory in fenced.values()]
        packed = (ctypes.c_void_p * len(pointers))(*pointers)
        grid = [launch.extents.get(axis, 1) for axis in ("blockIdx.x", "blockIdx.y", "threadIdx.x")]
        shared = FencedArray(np.full(launch.shared_bytes, _NOISE, np.uint8))
        at = ctypes.c_void_p(shared.array.ctypes.data)
        fault = getattr(self._library, f"run_{kernel}")(packed, *grid, at, eager)
        assert fault != signal.SIGUSR1, f"{kernel} on {self._arch} has bank conflicts"
        assert fault != signal.SIGSEGV, f"{kernel} on {self._arch} reads or writes beyond its arguments"
        assert fault == 0, f"{kernel} on {self._arch} overflows a signed integer or reads a word off its alignment"
        return {name: memory.array for name, memory in fenced.items()}


def unpacked(site: Site, stored: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the codes of tensors that a kernel has written."""
    return {name: site.written[name].unpack(torch.from_numpy(array.copy())) for name, array in stored.items()}


class EmulatedKernels:
    """The CUDA kernels of some ops; the text is the same for every architecture, the branches it takes are not."""

    def __init__(self, placed: Sequence[Site], make: Callable[[Site], Kernel] | None = None) -> None:
        make = make or CudaBackend(["sm_80"]).kernel
        self.sites = list(placed)
        self._kernels = [make(site) for site in self.sites]
        self._source = cuda_source({f"op{index}": kernel.function for index, kernel in enumerate(self._kernels)})

    def on(self, arch: str, folder: Path) -> Emulator:
        """Return the kernels compiled for one architecture."""
        return Emulator(self._source, arch, folder)

    def run(
        self, emulator: Emulator, index: int, values: Sequence[np.ndarray], *, eager: bool = False
    ) -> dict[str, Tensor]:
        """Return the codes of every tensor that one kernel writes, given the stored tensors it reads, in order."""
        return unpacked(self.sites[index], self.stored(emulator, index, values, eager=eager))

    def stored(
        self, emulator: Emulator, index: int, values: Sequence[np.ndarray], *, eager: bool = False
    ) -> dict[str, np.ndarray]:
        """Return the tensors that one kernel writes as they lie in memory."""
        kernel, site = self._kernels[index], self.sites[index]
        outs = [np.full(out.shape(site.batch), 85, out.dtype) for out in site.written.values()]  # needs no zeros
        names = [parameter.name for parameter in kernel.function.params]
        arguments = dict(zip(names, [*values, *kernel.constants, *outs], strict=True)) | workspaces(kernel.function)
        for number, launch in enumerate(launches(kernel.function)):
            name = f"op{index}_kernel_{number}" if number else f"op{index}_kernel"
            arguments |= emulator.run(name, launch, arguments, eager=eager)
        return {name: arguments[key] for name, key in zip(site.written, names[-len(outs) :], strict=True)}


class EmulatedNetwork:
    """A program's CUDA kernels, run in order."""

    def __init__(self, program: IntegerProgram, batch: int) -> None:
        self._kernels = EmulatedKernels(sites(program, CudaBackend(["sm_80"]), batch))

    def trace(self, images: Tensor, arch: str, folder: Path) -> dict[str, Tensor]:
        """Return the codes of every tensor the kernels write, as they compute them on one architecture."""
        emulator = self._kernels.on(arch, folder)
        memory: dict[str, np.ndarray] = {}
        codes: dict[str, Tensor] = {}
        for index, site in enumerate(self._kernels.sites):
            values = [memory[name] for name, _ in site.reads] or [images.contiguous().numpy()]
            made = self._kernels.stored(emulator, index, values)
            memory |= made
            codes |= unpacked(site, made)
        return codes
