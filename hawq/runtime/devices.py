"""Tell whether this machine can run a library's machine code, before running it: a CPU would only stop the process."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

from hawq.errors import HawqError
from hawq.hardware import cpu_flags

__all__ = ["ARCHITECTURES", "check_cpu", "check_gpu", "gpu_capability", "runs"]

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90")
"""GPUs that hawq builds code for."""

_DRIVER = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


def check_cpu(folder: Path, mcpu: str, features: Sequence[str]) -> None:
    """Check that this machine's CPU has the instructions of a library.

    Args:
        folder: of the library, for the message.
        mcpu: LLVM's name of the CPU it was compiled for.
        features: instruction sets it may use, by LLVM's names.

    Raises:
        HawqError: some are missing.
    """
    flags = {_plain(flag) for flag in cpu_flags()}
    missing = [name for name in features if flags and _plain(name) not in flags]
    if missing:
        raise HawqError(
            f"{folder} holds code for {mcpu}, and this CPU lacks {', '.join(missing)}: "
            "export with --mcpu and the name of this CPU, or of an older one such as x86-64-v3"
        )


def _plain(feature: str) -> str:
    """Return LLVM's `sse4.2` and `avx512vnni` and Linux's `sse4_2` and `avx512_vnni` in one spelling."""
    return feature.replace("_", "").replace(".", "")


def runs(architecture: str, capability: tuple[int, int]) -> bool:
    """Tell whether a GPU runs machine code: its generation must be the same and its revision no older."""
    major, minor = divmod(int(architecture.removeprefix("sm_")), 10)
    return major == capability[0] and minor <= capability[1]


def check_gpu(folder: Path, architectures: Sequence[str], capability: tuple[int, int] | None) -> None:
    """Check that a GPU runs a library.

    Args:
        folder: of the library, for the message.
        architectures: it holds code for.
        capability: generation and revision of the GPU, None where there is none.

    Raises:
        HawqError: there is no GPU, or its machine code is not in the library.
    """
    if capability is None:
        raise HawqError(
            f"{folder} holds a CUDA library, and this machine shows no NVIDIA GPU: copy it to one that has it, "
            "or export with --target llvm"
        )
    if not any(runs(name, capability) for name in architectures):
        best = max((name for name in ARCHITECTURES if runs(name, capability)), default=None)
        advice = f"export again with --arch {best}" if best else f"hawq builds for {', '.join(ARCHITECTURES)} only"
        here = "sm_{}{}".format(*capability)
        raise HawqError(f"{folder} holds code for {', '.join(architectures)}, and this GPU is {here}: {advice}")


def gpu_capability() -> tuple[int, int] | None:
    """Return generation and revision of the first GPU as the driver tells them, None without driver or GPU."""
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    try:
        driver = ctypes.CDLL(_DRIVER)
        failed = (  # each returns 0 or an error code
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), 0)
            or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
            or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        )
    except (OSError, AttributeError):  # no driver, or a stand-in that lacks these functions
        return None
    return None if failed else (major.value, minor.value)
