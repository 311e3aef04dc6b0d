"""Time every kernel inside the whole network, with the layouts and caches of the deployed library.

The network runs on a virtual machine that calls a hook before and after every kernel. The hook's own time, that of an
empty call, is subtracted. Kernels are told apart by their order, which is the program's: equal layers share one
compiled function.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import tvm
from torch import Tensor
from tvm import relax

from hawq.errors import HawqError
from hawq.integer import IntegerProgram
from tvm_export.backend import Backend
from tvm_export.link import Workshop
from tvm_export.lower import LoweredNetwork, image_dtype

__all__ = ["TimedNetwork", "random_image"]

_GPU_CALLS = 20
"""Launches of a kernel per measurement on a GPU: the wait at the end must not count."""

_EMPTY = "vm.builtin.null_value"
"""A call without arguments that does nothing; every network has one per tensor it frees."""


def random_image(program: IntegerProgram, batch: int, device: str, seed: int) -> Tensor:
    """Return a batch of noise, as the program takes it."""
    shape, generator = (batch, *program.input.out.shape), torch.Generator().manual_seed(seed)
    if image_dtype(program.input) == "uint8":
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
    return torch.randn(shape, generator=generator).to(device)


class TimedNetwork:
    """Run one machine code twice over, with and without hooks.

    Args:
        lowered: the network.
        chosen: compiles it.
        workshop: where its kernels are compiled.

    Attributes:
        kernels: names of the ops that the kernels begin with, in the order of their calls.
    """

    def __init__(self, lowered: LoweredNetwork, chosen: Backend, workshop: Workshop) -> None:
        on_gpu = chosen.device == "cuda"
        module = chosen.compile(lowered.module, workshop).executable.jit()
        device = tvm.cuda() if on_gpu else tvm.cpu()
        self.kernels, self._storage = lowered.kernels, lowered.storage
        self._plain, self._hooked = (relax.VirtualMachine(module, device) for _ in range(2))
        self._hook = _Hook(_functions(lowered.module), _GPU_CALLS if on_gpu else 0)
        self._hooked.set_instrument(self._hook)

    def __call__(self, image: Tensor) -> Any:
        """Return the outputs of a batch as they are stored, without hooks."""
        return self._plain["main"](image)

    def trace(self, image: Tensor) -> dict[str, Tensor]:
        """Return the codes of every tensor that a kernel writes, by name, in program order."""
        outputs = self._plain["trace"](image)
        return {
            name: storage.unpack(torch.from_dlpack(out))
            for (name, storage), out in zip(self._storage.items(), outputs, strict=True)
        }

    def kernel_times(self, image: Tensor) -> list[float]:
        """Return the milliseconds of every kernel of one run.

        Raises:
            HawqError: the compiler has changed the order or number of the kernels.
        """
        return self._hook.run(lambda: self._hooked["main"](image))


def _functions(module: tvm.IRModule) -> list[str]:
    """Return the functions that `main` calls, one for every kernel, in the order of the calls."""
    values = [binding.value for block in module["main"].body.blocks for binding in block.bindings]
    return [value.args[0].name_hint for value in values if isinstance(value, relax.Call)]


class _Hook:
    """Time the kernels a virtual machine calls.

    Args:
        expected: names of the functions, in order.
        replays: 0 times each kernel where it stands; more calls it that often in a row, beside its own call.
    """

    def __init__(self, expected: list[str], replays: int) -> None:
        self._expected, self._known, self._replays = expected, frozenset(expected), replays
        self._names: list[str] = []
        self._times: list[float] = []
        self._empty: list[float] = []
        self._started = 0.0

    def __call__(self, function: Any, name: str, before: bool, result: Any, *arguments: Any) -> int:
        """Take the time; return 0, for the machine to go on."""
        now = time.perf_counter()
        if before and self._replays and name in self._known:
            self._record(name, _replay(lambda: function(*arguments), self._replays))
        elif not before and (name == _EMPTY or (name in self._known and not self._replays)):
            self._record(name, (now - self._started) * 1e3)
        self._started = time.perf_counter()
        return 0

    def _record(self, name: str, elapsed: float) -> None:
        if name == _EMPTY:
            self._empty.append(elapsed)
        else:
            self._names.append(name)
            self._times.append(elapsed)

    def run(self, call: Callable[[], Any]) -> list[float]:
        """Return the time of every kernel of one run, in milliseconds.

        Raises:
            HawqError: the compiler has changed the order or number of the kernels.
        """
        for seen in (self._names, self._times, self._empty):
            seen.clear()
        call()
        if self._names != self._expected:
            raise HawqError(
                f"the compiled network calls {len(self._names)} kernels in another order than its "
                f"{len(self._expected)} ops, so times cannot be told apart; please report this with the TVM version"
            )
        cost = 0.0 if self._replays else float(np.median(self._empty or [0.0]))
        return [max(elapsed - cost, 0.0) for elapsed in self._times]


def _replay(call: Callable[[], Any], times: int) -> float:
    """Return the milliseconds of one of several calls in a row; a kernel only writes its output, so it may repeat."""
    call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3 / times
