"""Measure how long every unit takes inside the whole network, compiled as `export` does it."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch

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
from tvm_export.lower import lower
from tvm_export.timed import TimedNetwork, random_image

__all__ = ["Profile", "profile", "steps", "uniform_program"]

_ROUNDS = 5
"""Programs take turns this often, so that a machine that slows down slows all of them."""


@dataclass(frozen=True)
class Profile:
    """Latency of the parts of one program, per batch.

    Attributes:
        units: unit -> latency of its kernel, with the ops that it computes behind the unit's own.
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
    """Collect times in ms of a network and of its kernels."""

    def __init__(self, program: IntegerProgram, target: str, batch: int) -> None:
        certify(program)
        chosen = backend(target)
        self._network = TimedNetwork(lower(program, chosen, batch), chosen, Workshop())
        self._image = random_image(program, batch, chosen.device, seed=0)
        self._whole: list[float] = []
        self._calls: list[list[float]] = []

    def measure(self, seconds: float) -> None:
        """Spend `seconds` without hooks and `seconds` with them."""
        self._whole += sample(lambda: self._network(self._image), seconds=seconds)
        self._network.kernel_times(self._image)  # warms up
        end = time.perf_counter() + seconds
        while not self._calls or time.perf_counter() < end:
            self._calls.append(self._network.kernel_times(self._image))

    def result(self, units: Collection[str]) -> Profile:
        names, times = self._network.kernels, np.array(self._calls)  # (runs, ops)
        inside = np.array([name in units for name in names])
        columns = {name: summary(times[:, i]) for i, name in enumerate(names) if name in units}
        return Profile(columns, summary(times[:, ~inside].sum(1)), summary(self._whole))
