"""Turn CUDA source into machine code without a GPU, and look at what came out."""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi

from hawq.errors import HawqError
from tvm_export.cuda.resources import KernelResources, parse_report

__all__ = ["MachineCode", "compile_source", "compiler_version", "count_imma", "disassemble", "enable_cuda_modules"]

_DRIVER = "libcuda.so.1"
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_SYMBOLS = (
    "cuDeviceGetName", "cuFuncSetAttribute", "cuGetErrorName", "cuGetErrorString", "cuLaunchKernelEx",
    "cuModuleGetFunction", "cuModuleLoadData", "cuModuleUnload", "cuTensorMapEncodeTiled",
)  # fmt: skip
"""What TVM's CUDA runtime wants of the driver; on a machine that only compiles none of it is called."""


def enable_cuda_modules() -> None:
    """Make TVM able to build CUDA modules on a machine without a driver.

    TVM's CUDA runtime links the driver's library. Without it TVM silently embeds source text in an exported library
    instead of machine code, so a library of that name whose functions all fail stands in.

    Raises:
        HawqError: neither a driver nor a C compiler to build the stand-in with.
    """
    if tvm_ffi.get_global_func("ffi.Module.create.cuda", allow_missing=True) is not None:
        return
    try:
        ctypes.CDLL(_DRIVER, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        _load_stub()
    import torch  # noqa: F401  # brings libcudart, which the runtime links as well

    runtime = Path(tvm.__file__).parent / "lib" / "libtvm_runtime_cuda.so"
    try:
        ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise HawqError(f"TVM's CUDA runtime cannot be loaded ({error}); install a CUDA build of torch") from error


def _load_stub() -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise HawqError("building CUDA libraries without a driver needs a C compiler (cc, gcc or clang) on the PATH")
    code = "".join(f"int {symbol}(void) {{ return {_NO_DEVICE}; }}\n" for symbol in _SYMBOLS)
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "stub.c", Path(folder) / _DRIVER
        source.write_text(code)
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{_DRIVER}", "-o", str(library), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise HawqError(f"{compiler} cannot build a stand-in for the driver:\n{done.stderr[-2000:]}")
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


@dataclass(frozen=True)
class MachineCode:
    """What a compiler made.

    Attributes:
        image: a fat binary from nvcc, or a cubin from NVRTC.
        kernels: what each of its kernels takes.
    """

    image: bytes
    kernels: tuple[KernelResources, ...]

    def to_bytes(self) -> bytes:
        """Return both as one string of bytes."""
        return json.dumps([asdict(kernel) for kernel in self.kernels]).encode() + b"\n" + self.image

    @classmethod
    def from_bytes(cls, data: bytes) -> "MachineCode":
        """Return what `to_bytes` was called on."""
        head, image = data.split(b"\n", 1)
        return cls(image, tuple(KernelResources(**kernel) for kernel in json.loads(head)))


def compile_source(code: str, architectures: Sequence[str]) -> MachineCode:
    """Compile CUDA source to machine code with nvcc, or with NVRTC where there is no nvcc.

    Division stays IEEE: no fast-math.

    Args:
        code: CUDA C++.
        architectures: `sm_80` and the like; NVRTC takes one.

    Raises:
        HawqError: no compiler, or the source does not compile.
    """
    nvcc = shutil.which("nvcc")
    return _nvcc(nvcc, code, architectures) if nvcc else _nvrtc(code, architectures)


def compiler_version() -> str:
    """Return which compiler `compile_source` takes, in its own words."""
    nvcc = shutil.which("nvcc")
    if nvcc:
        return subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    return f"NVRTC {_nvrtc_module().nvrtcVersion()}"


def _nvcc(nvcc: str, code: str, architectures: Sequence[str]) -> MachineCode:
    targets = [
        option
        for name in architectures
        for option in ("-gencode", f"arch=compute_{name.removeprefix('sm_')},code={name}")
    ]
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "kernels.cu", Path(folder) / "kernels.fatbin"
        source.write_text(code)
        options = ["--fatbin", "-O3", "-std=c++17", "-w", "-Xptxas", "-v", *targets]
        command = [nvcc, *options, "-o", str(binary), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise HawqError(f"nvcc failed for {', '.join(architectures)}:\n{done.stderr[-2000:]}")
        return MachineCode(binary.read_bytes(), parse_report(done.stdout + done.stderr))


def _nvrtc(code: str, architectures: Sequence[str]) -> MachineCode:
    if len(architectures) != 1:
        raise HawqError(f"several architectures ({', '.join(architectures)}) need nvcc on the PATH; NVRTC takes one")
    nvrtc = _nvrtc_module()
    includes = [f"-I{path}" for path in _include_folders()]
    options = [f"--gpu-architecture={architectures[0]}", "-std=c++17", "--ptxas-options=-v", *includes]
    _, program = nvrtc.nvrtcCreateProgram(code.encode(), b"kernels.cu", 0, [], [])
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * size
    nvrtc.nvrtcGetProgramLog(program, log)
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise HawqError(f"NVRTC failed for {architectures[0]}:\n{log.decode()[-2000:]}")
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    binary = b" " * size
    nvrtc.nvrtcGetCUBIN(program, binary)
    return MachineCode(binary, parse_report(log.decode()))


def _nvrtc_module() -> Any:
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise HawqError("building for cuda needs nvcc on the PATH or the package cuda-bindings (NVRTC)") from error
    return nvrtc


def _include_folders() -> list[Path]:
    """Return the header folders of the pip packages of CUDA; those of its C++ library lie one deeper."""
    roots = [Path(folder) / "nvidia" for folder in sys.path if folder]
    found = [path for root in roots for path in sorted(root.glob("*/include"))]
    return [path for folder in found for path in (folder, folder / "cccl") if path.is_dir()]


def disassemble(library: Path) -> dict[str, str]:
    """Return the machine code in an exported library as text, by architecture.

    Raises:
        HawqError: there is no cuobjdump, it failed, or the library holds no machine code.
    """
    tool = _cuobjdump()
    images = _device_images(Path(library).read_bytes())
    if not images:
        raise HawqError(f"{library} holds no machine code for GPUs")
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for index, image in enumerate(images):
            path = Path(folder) / f"{index}.bin"
            path.write_bytes(image)
            done = subprocess.run([tool, "-sass", str(path)], capture_output=True, text=True)
            if done.returncode:
                raise HawqError(f"cuobjdump cannot read {library}:\n{done.stderr[-2000:]}")
            for part in re.split(r"(?=code for sm_\d+)", done.stdout)[1:]:
                name = part.split(maxsplit=3)[2]
                found[name] = found.get(name, "") + part
    return found


def count_imma(code: str) -> Counter[str]:
    """Return how often each integer tensor-core instruction occurs in disassembled code, by its full name."""
    return Counter(re.findall(r"IMMA\.\S+", code))


def _cuobjdump() -> str:
    bundled = [Path(folder) / "triton/backends/nvidia/bin/cuobjdump" for folder in sys.path if folder]
    for candidate in (shutil.which("cuobjdump"), *map(str, bundled)):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise HawqError("cuobjdump was found neither on the PATH nor in the package triton: pip install triton")


_FATBIN_MAGIC = b"\x50\xed\x55\xba"
_ELF_MAGIC, _EM_CUDA = b"\x7fELF", 190


def _device_images(data: bytes) -> list[bytes]:
    """Cut fat binaries, or bare cubins, out of a library."""
    images = []
    for match in re.finditer(re.escape(_FATBIN_MAGIC), data):
        start = match.start()
        header, size = int.from_bytes(data[start + 6 : start + 8], "little"), data[start + 8 : start + 16]
        images.append(data[start : start + header + int.from_bytes(size, "little")])
    if not images:
        starts = [m.start() for m in re.finditer(re.escape(_ELF_MAGIC), data)]
        images = [data[s:] for s in starts if int.from_bytes(data[s + 18 : s + 20], "little") == _EM_CUDA]
    return images
