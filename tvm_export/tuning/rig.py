"""Measure plans inside the whole network: the default network and one with other plans take turns."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from hawq.errors import HawqError
from hawq.integer import IntegerProgram
from tvm_export.backend import Backend
from tvm_export.link import Workshop
from tvm_export.lower import lower
from tvm_export.plans import Plan
from tvm_export.timed import TimedNetwork, random_image
from tvm_export.tuning.layers import digest

__all__ = ["FINAL", "TRIAL", "Effort", "NetworkRig", "Rig", "Times"]

_T = TypeVar("_T")

Times = tuple[list[float], list[float]]
"""Milliseconds of the default and of the plan, turn by turn."""


@dataclass(frozen=True)
class Effort:
    """How long to measure: each build until its time is up, between `least` and `most` turns.

    Attributes:
        seconds: to spend on a build.
        least: turns at least; a sign test at 1 % wants 10 of 11.
        most: turns at most.
        builds: how often both networks are built. Where their tensors happen to lie decides about a few percent, too.
    """

    seconds: float
    least: int
    most: int
    builds: int = 1


TRIAL, FINAL = Effort(0.7, 11, 51), Effort(1.5, 15, 101, builds=3)


class Rig(Protocol):
    """Where plans are measured."""

    def kernels(self, plans: Mapping[str, Plan], effort: Effort) -> Mapping[str, Times]:
        """Return the times of the kernels that follow plans, by the op they begin with."""

    def network(self, plans: Mapping[str, Plan], effort: Effort) -> Times:
        """Return the times of the network as a whole."""


class NetworkRig:
    """Compile a network with other plans and let it take turns with the default one.

    Measured alone, a kernel would find its weights and its input in the caches, and the plan that is best there is
    another one than in a network.

    Args:
        program: certified.
        chosen: the target; its code must run here.
        batch: images per call.
        workshop: where kernels are compiled and kept.
    """

    def __init__(self, program: IntegerProgram, chosen: Backend, batch: int, workshop: Workshop) -> None:
        self._program, self._chosen, self._batch, self._workshop = program, chosen, batch, workshop
        self._default = self._compiled({})

    def kernels(self, plans: Mapping[str, Plan], effort: Effort) -> dict[str, Times]:
        """Return the times of the kernels that follow plans, by the op they begin with.

        Raises:
            HawqError: one of them computes other integers than by default.
        """
        turns = self._turns(TimedNetwork.kernel_times, plans, effort)
        places = {name: index for index, name in enumerate(self._default.kernels) if name in plans}
        return {
            name: ([default[at] for default, _ in turns], [planned[at] for _, planned in turns])
            for name, at in places.items()
        }

    def network(self, plans: Mapping[str, Plan], effort: Effort) -> Times:
        """Return the times of the network as a whole.

        Raises:
            HawqError: it computes other integers than by default.
        """
        turns = self._turns(_elapsed_ms, plans, effort)
        return [default for default, _ in turns], [planned for _, planned in turns]

    def _turns(
        self, run: Callable[[TimedNetwork, Tensor], _T], plans: Mapping[str, Plan], effort: Effort
    ) -> list[tuple[_T, _T]]:
        """Return what runs of the default network and of one that follows plans give, turn by turn."""
        turns: list[tuple[_T, _T]] = []
        for build in range(effort.builds):
            if build:
                self._default = self._compiled({})
            network = self._compiled(plans)
            facts = {"plans": {name: str(plan) for name, plan in plans.items()}, "build": build, "turns": effort.most}
            seed = int(digest(facts), 16)  # measurements of other plans see other images
            image = random_image(self._program, self._batch, self._chosen.device, seed)
            self._check(network, plans, image)
            turns += _alternate(lambda n, image=image: run(n, image), self._default, network, effort)
        return turns

    def _compiled(self, plans: Mapping[str, Plan]) -> TimedNetwork:
        lowered = lower(self._program, self._chosen, self._batch, plans)
        return TimedNetwork(lowered, self._chosen, self._workshop)

    def _check(self, network: TimedNetwork, plans: Mapping[str, Plan], image: Tensor) -> None:
        """Compare all tensors that are written."""
        expected, found = self._default.trace(image), network.trace(image)
        wrong = next((name for name in expected if not torch.equal(expected[name], found[name])), None)
        if wrong is not None:
            followed = "; ".join(f"{name}: {plan}" for name, plan in plans.items())
            raise HawqError(f"tensor {wrong!r} has other integers than by default; please report it with {followed}")


def _alternate(
    run: Callable[[TimedNetwork], _T], default: TimedNetwork, planned: TimedNetwork, effort: Effort
) -> Iterator[tuple[_T, _T]]:
    """Yield what runs of both networks give, turn by turn; who begins changes."""
    end, turn = time.perf_counter() + effort.seconds, 0
    while turn < effort.least or (turn < effort.most and time.perf_counter() < end):
        found = {}
        for network in (default, planned) if turn % 2 else (planned, default):
            run(network)  # so that the caches hold what this network leaves in them, not what the other does
            found[network] = run(network)
        yield found[default], found[planned]
        turn += 1


def _elapsed_ms(network: TimedNetwork, image: Tensor) -> float:
    start = time.perf_counter()
    network(image)
    return (time.perf_counter() - start) * 1e3
