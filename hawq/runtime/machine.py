"""Load TVM's runtime without its Python package, and call a library's functions with numpy arrays."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hawq.errors import HawqError, UsageError, reason

__all__ = ["RUNTIME_VARIABLE", "Machine", "find_runtime"]

RUNTIME_VARIABLE = "HAWQ_TVM_RUNTIME"
"""Environment variable with the folder of TVM's runtime libraries."""

_RUNTIME, _CUDA_RUNTIME, _CUDART = "libtvm_runtime.so", "libtvm_runtime_cuda.so", "libcudart.so.13"
_CPU, _CUDA, _POOLED = 1, 2, 2  # device types of DLPack; TVM's allocator that keeps memory between calls
_FFI = "apache-tvm-ffi==0.1.14.post1"


def find_runtime(beside: Path, given: Path | None = None) -> Path:
    """Return the folder of TVM's runtime library.

    Args:
        beside: folder of the model; the runtime may lie next to it.
        given: the user's choice; by default HAWQ_TVM_RUNTIME, then `beside`, then an installed apache-tvm.

    Raises:
        UsageError: it is in none of them.
    """
    chosen = given or os.environ.get(RUNTIME_VARIABLE)
    places = [Path(chosen)] if chosen else [beside, *(Path(folder) / "tvm" / "lib" for folder in sys.path)]
    for place in places:
        if (place / _RUNTIME).is_file():
            return place
    looked = f"not in {places[0]}" if chosen else f"neither in {beside} nor in an installed apache-tvm"
    raise UsageError(
        f"{_RUNTIME} is {looked}: copy it from the wheel of apache-tvm (folder tvm/lib) next to model.so, "
        f"or give its folder with --tvm-runtime or {RUNTIME_VARIABLE}"
    )


class Machine:
    """TVM's virtual machine with a library in it.

    Args:
        library: the `.so` file.
        cuda: run on the first GPU instead of the CPU.
        runtime: folder of TVM's runtime libraries.

    Raises:
        HawqError: a package or library is missing, or the model cannot be loaded.
    """

    def __init__(self, library: Path, *, cuda: bool, runtime: Path) -> None:
        try:
            import tvm_ffi
        except ImportError as error:
            raise HawqError(f"running a library needs the package {_FFI} ({reason(error)}): pip install it") from error
        try:
            ctypes.CDLL(str(runtime / _RUNTIME), mode=ctypes.RTLD_GLOBAL)
            if cuda:
                ctypes.CDLL(_find_cudart(), mode=ctypes.RTLD_GLOBAL)
                ctypes.CDLL(str(runtime / _CUDA_RUNTIME), mode=ctypes.RTLD_GLOBAL)
            self._module = tvm_ffi.load_module(str(library))["vm_load_executable"]()
            places = [_CUDA, 0, _POOLED] if cuda else []
            self._module["vm_initialization"](*places, _CPU, 0, _POOLED)
        except (OSError, RuntimeError, ValueError, AttributeError) as error:
            raise HawqError(f"{library} cannot be loaded on this machine ({reason(error)})") from error
        self._ffi, self._device = tvm_ffi, tvm_ffi.device("cuda" if cuda else "cpu", 0)
        names = ("AllocWithScope", "CopyFromBytes", "CopyToBytes")
        self._allocate, self._fill, self._fetch = (
            tvm_ffi.get_global_func(f"runtime.TVMTensor{name}") for name in names
        )

    def upload(self, array: np.ndarray) -> Any:
        """Return an array as a tensor on the device, aligned as compiled code takes for granted."""
        array = np.ascontiguousarray(array)
        tensor = self._allocate(self._ffi.Shape(array.shape), self._ffi.dtype(str(array.dtype)), self._device, None)
        self._fill(tensor, ctypes.c_void_p(array.ctypes.data), array.nbytes)
        return tensor

    def call(self, entry: str, tensor: Any) -> Any:
        """Return what a function of the library makes of a tensor; a GPU may still be at work on it."""
        return self._module[entry](tensor)

    def download(self, tensor: Any) -> np.ndarray:
        """Return a copy of a tensor, once the device has finished it."""
        array = np.empty(tuple(tensor.shape), str(tensor.dtype))
        self._fetch(tensor, ctypes.c_void_p(array.ctypes.data), array.nbytes)
        return array


def _find_cudart() -> str:
    """Return the path of CUDA's runtime where a pip package brings it, else the name the system's loader knows."""
    found = (path for folder in sys.path for path in sorted(Path(folder).glob(f"nvidia/*/lib/{_CUDART}")))
    return str(next(found, _CUDART))
