"""Measure how long every unit takes inside the whole network, with the layouts and caches of the deployed library.

The network is compiled as `export` does it and run on a virtual machine that calls a hook before and after every
kernel. The hook's own time, that of an empty call, is subtracted. Kernels are told apart by their order, which is the
program's: equal layers share one compiled function.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tvm
from tvm import relax

from hawq.bitconfig import BitConfig, UnitBits
from hawq.errors import HawqError
from hawq.graph.ir import FloatGraph
from hawq.graph.structure import pinned_units
from hawq.hardware import present_device
from hawq.integer import IntegerProgram, certify
from hawq.qat.model import QuantizedModel
from hawq.schemes import PINNED_BITS
from tvm_export.backend import backend
from tvm_export.cuda.device import ARCHITECTURES, present_architecture
from tvm_export.latency import Latency, sample, summary
from tvm_export.link import Workshop
from tvm_export.lower import image_dtype, lower

__all__ = ["Profile", "profile", "steps", "uniform_program"]

_ROUNDS = 5
"""Programs take turns this often, so that a machine that slows down slows all of them."""

_GPU_CALLS = 20
"""Launches of a kernel per measurement on a GPU: the wait at the end must not count."""

_EMPTY = "vm.builtin.null_value"
"""A call without arguments that does nothing; every network has one per tensor it frees."""


@dataclass(frozen=True)
class Profile:
    """Latency of the parts of one program, per batch.

    Attributes:
        units: unit -> latency of its kernel, requantization included.
        rest: sum over the kernels that belong to no unit.
        whole: the network measured undivided, without hooks.
    """

    units: Mapping[str, Latency]
    rest: Latency
    whole: Latency

    @property
    def total_ms(self) -> float:
        """Sum of the medians of all units and the rest, in milliseconds."""
        return sum(latency.median_ms for latency in self.units.values()) + self.rest.median_ms


def uniform_program(graph: FloatGraph, arch: str, bits: UnitBits, seed: int = 0) -> IntegerProgram:
    """Return a network with the same bits in all searched units, 8 in the pinned ones.

    Activation ranges come from random images: latency does not depend on values.
    """
    pinned = pinned_units(graph)
    config = BitConfig(arch, f"uniform{bits}", {u: PINNED_BITS if u in pinned else bits for u in graph.units})
    model = QuantizedModel(graph, config)
    model.calibrate([torch.randn(2, *graph.input.shape, generator=torch.Generator().manual_seed(seed))])
    return model.eval().lower()


def profile(
    programs: Mapping[UnitBits, IntegerProgram],
    units: Collection[str],
    target: str,
    *,
    batch: int = 1,
    seconds: float = 4.0,
    advance: Callable[[str], None] = lambda _: None,
) -> dict[UnitBits, Profile]:
    """Return where the time of each program goes.

    Args:
        programs: what to measure, by its bits; they take turns.
        units: ops that are told apart; all others are the rest.
        target: `llvm` or `cuda`.
        batch: images per call.
        seconds: to spend on each program, half of it with hooks.
        advance: told what comes next, `steps(len(programs))` times.

    Raises:
        UsageError: unknown target.
        HawqError: there is no such device here, an accumulator may leave int32, or the compiler failed.
    """
    _check_present(target)
    subjects = {}
    for bits, program in programs.items():
        advance(f"compiling, {bits} bits")
        subjects[bits] = _Subject(program, target, batch)
    share = seconds / _ROUNDS / 2
    for _ in range(_ROUNDS):
        for bits, subject in subjects.items():
            advance(f"measuring, {bits} bits")
            subject.measure(share)
    return {bits: subject.result(units) for bits, subject in subjects.items()}


def _check_present(target: str) -> None:
    device = present_device(target)
    if target == "cuda" and present_architecture() is None:
        raise HawqError(f"hawq builds for {', '.join(ARCHITECTURES)}, and this GPU is {device}: use --target llvm")


def steps(programs: int) -> int:
    """Return how often `profile` calls `advance` for a number of programs."""
    return programs * (_ROUNDS + 1)


class _Subject:
    """Compile a program twice over on one machine code, with and without hooks, and collect times in ms."""

    def __init__(self, program: IntegerProgram, target: str, batch: int) -> None:
        certify(program)
        chosen = backend(target)
        lowered = lower(program, chosen, batch)
        module = chosen.compile(lowered.module, Workshop()).executable.jit()
        on_gpu = chosen.device == "cuda"
        device = tvm.cuda() if on_gpu else tvm.cpu()
        image = torch.zeros(batch, *program.input.out.shape, dtype=getattr(torch, image_dtype(program.input)))
        self._image = image.to(chosen.device)
        self._plain, self._hooked = (relax.VirtualMachine(module, device) for _ in range(2))
        self._hook = _Hook(_kernels(lowered.module), _GPU_CALLS if on_gpu else 0)
        self._hooked.set_instrument(self._hook)
        self._names = lowered.kernels
        self._whole: list[float] = []
        self._calls: list[list[float]] = []

    def measure(self, seconds: float) -> None:
        """Spend `seconds` without hooks and `seconds` with them."""
        self._whole += sample(lambda: self._plain["main"](self._image), seconds=seconds)
        self._hook.run(lambda: self._hooked["main"](self._image))  # warms up
        end = time.perf_counter() + seconds
        while not self._calls or time.perf_counter() < end:
            self._calls.append(self._hook.run(lambda: self._hooked["main"](self._image)))

    def result(self, units: Collection[str]) -> Profile:
        times = np.array(self._calls)  # (runs, ops)
        inside = np.array([name in units for name in self._names])
        columns = {name: summary(times[:, i]) for i, name in enumerate(self._names) if name in units}
        return Profile(columns, summary(times[:, ~inside].sum(1)), summary(self._whole))


def _kernels(module: tvm.IRModule) -> list[str]:
    """Return the functions that `main` calls, one for every op, in program order."""
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
