"""Run the CUDA source that TVM generates for a network on the CPU, kernel by kernel."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from torch import Tensor

from hawq.integer import IntegerProgram
from tvm_export.cuda.backend import CudaBackend
from tvm_export.cuda.toolchain import enable_cuda_modules
from tvm_export.lower import sites

_HEADER = Path(__file__).parent / "cuda_emulator.h"
_KERNEL = re.compile(r'extern "C" __global__ void[^(]*\(\d+\) (\w+)\(([^)]*)\) \{')


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


def launch_size(function: tvm.tirx.PrimFunc) -> dict[str, int]:
    """Return the extent of every thread axis a function launches."""
    text = function.script()
    bound = re.findall(r'thread_binding\((\d+), thread="([\w.]+)"\)', text)
    launched = re.findall(r'launch_thread\("([\w.]+)", (\d+)\)', text)
    return {axis: int(extent) for extent, axis in bound} | {axis: int(extent) for axis, extent in launched}


class Emulator:
    """Compile CUDA source for the CPU, taking the branches of one GPU architecture."""

    def __init__(self, source: str, arch: str, folder: Path) -> None:
        if shutil.which("g++") is None:
            pytest.skip("needs g++ to run CUDA kernels on the CPU")
        (folder / "cuda.h").write_text("")  # the generated source includes it and needs nothing of it
        runners, self._arguments = "", {}
        for name, parameters in dict(_KERNEL.findall(source)).items():
            types = [re.match(r"\s*(.*?\*)", p)[1] for p in parameters.split(",")]
            self._arguments[name] = [re.search(r"(\w+?)_ptr", p)[1] for p in parameters.split(",")]
            passed = ", ".join(f"({kind})p[{i}]" for i, kind in enumerate(types))
            runners += (
                f'extern "C" void run_{name}(void** p, int x, int y, int block) '
                f"{{ emulator::run_grid(x, y, block, [=] {{ {name}({passed}); }}); }}\n"
            )
        code, library = folder / "kernels.cpp", folder / f"{arch}.so"
        code.write_text(f'#include "{_HEADER}"\n{source}\n{runners}')
        flags = [f"-DHAWQ_ARCH={arch.removeprefix('sm_')}0", "-DHAWQ_EMULATED", f"-I{folder}"]
        command = ["g++", "-O1", "-w", "-shared", "-fPIC", "-std=c++17", *flags, str(code), "-o", str(library)]
        subprocess.run(command, check=True)
        self._library = ctypes.CDLL(str(library))

    def run(self, kernel: str, extents: dict[str, int], arguments: dict[str, np.ndarray]) -> None:
        """Launch one kernel; outputs are written in place."""
        pointers = [arguments[name].ctypes.data for name in self._arguments[kernel]]
        packed = (ctypes.c_void_p * len(pointers))(*pointers)
        grid = extents.get("blockIdx.x", 1), extents.get("blockIdx.y", 1), extents["threadIdx.x"]
        getattr(self._library, f"run_{kernel}")(packed, *grid)


class EmulatedNetwork:
    """A program's CUDA kernels; the text is the same for every architecture, the branches it takes are not."""

    def __init__(self, program: IntegerProgram, batch: int) -> None:
        backend = CudaBackend(["sm_80"])
        self._sites = sites(program, backend, batch)
        self._kernels = [backend.kernel(site) for site in self._sites]
        self._source = cuda_source({f"op{index}": kernel.function for index, kernel in enumerate(self._kernels)})

    def trace(self, images: Tensor, arch: str, folder: Path) -> dict[str, Tensor]:
        """Return the codes of every tensor as the kernels compute them on one architecture."""
        emulator = Emulator(self._source, arch, folder)
        memory: dict[str, np.ndarray] = {}
        for index, (kernel, site) in enumerate(zip(self._kernels, self._sites, strict=True)):
            out = np.full(site.out.shape(site.batch), 85, site.out.dtype)  # padding must not need zeros
            memory[site.op.name] = out
            values = [memory[source] for source in site.op.inputs] or [images.contiguous().numpy()]
            names = [parameter.name for parameter in kernel.function.params]
            arguments = dict(zip(names, [*values, *kernel.constants, out], strict=True))
            emulator.run(f"op{index}_kernel", launch_size(kernel.function), arguments)
        return {site.op.name: site.out.unpack(torch.from_numpy(memory[site.op.name])) for site in self._sites}
