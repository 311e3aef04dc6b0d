"""Measure the peak of a core: 8-bit multiply-accumulates a second, in registers only."""

import ctypes
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hawq.errors import HawqError, reason

__all__ = ["Peak", "measure_peak"]

_SOURCE = Path(__file__).with_name("cpu_peak.c")
_ITERATIONS = 2_000_000
"""Of the loop in one attempt: some 10 ms."""


@dataclass(frozen=True)
class Peak:
    """What one core does at most.

    Attributes:
        instruction: that reaches it.
        gmacs: 10^9 multiply-accumulates a second.
    """

    instruction: str
    gmacs: float


def measure_peak(seconds: float = 0.5) -> Peak:
    """Return the best of the attempts that fit into some seconds, one thread.

    Raises:
        HawqError: there is no C compiler, or no loop for this CPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        command = [os.environ.get("CC", "cc"), "-O2", "-march=native", "-shared", "-fPIC", str(_SOURCE)]
        try:
            subprocess.run([*command, "-o", str(library)], check=True, capture_output=True, text=True)
        except OSError as error:
            raise HawqError(f"the peak needs a C compiler ({reason(error)}): install gcc, or name one by CC") from error
        except subprocess.CalledProcessError as error:
            raise HawqError(
                f"{_SOURCE.name} does not compile here; it needs AVX2 or VNNI, and a compiler that knows them:\n"
                f"{error.stderr}"
            ) from error
        loop = ctypes.CDLL(str(library))
    loop.run.argtypes, loop.run.restype, loop.instruction.restype = [ctypes.c_int64], ctypes.c_int64, ctypes.c_char_p
    best, end = 0.0, time.perf_counter() + seconds
    while best == 0 or time.perf_counter() < end:
        started = time.perf_counter()
        macs = loop.run(_ITERATIONS)
        best = max(best, macs / (time.perf_counter() - started) / 1e9)
    return Peak(loop.instruction().decode(), best)
