"""Let sides take turns, each in a process of its own that may use certain cores only."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import cpu_ours  # noqa: F401  # registers its sides, in the processes of the workers as well
import cpu_peers  # noqa: F401  # registers its sides
from cpu_sides import SIDES, Candidate, Subject

from hawq.errors import HawqError, UsageError

__all__ = ["Times", "Worker", "alone", "cores", "ratios", "take_turns"]

_T = TypeVar("_T")
_REST = 0.05
"""Seconds between turns: threads that spin while they wait have gone to sleep by then."""

_TRIAL = 0.3
"""Seconds to spend on each setting of a side, to find its fastest."""


def cores(threads: int) -> tuple[int, ...]:
    """Return the cores to use, of those this process may use: the last ones, as the first serves interrupts.

    Raises:
        UsageError: there are fewer.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
        raise UsageError(f"{threads} threads need as many cores, and this process may use {len(allowed)}: give fewer")
    return tuple(allowed[-threads:])


def _pool(on: Sequence[int]) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=_pin, initargs=(on,))


def _pin(on: Sequence[int]) -> None:
    """Restrict a fresh process, before it imports what starts threads."""
    os.sched_setaffinity(0, on)
    os.environ.update(dict.fromkeys(("TVM_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(len(on))))
    # TVM binds to cores of its own choice: right where it has them all, else it would leave the given ones
    os.environ["TVM_BIND_THREADS"] = str(int(len(on) == os.cpu_count()))


def alone(function: Callable[..., _T], *arguments: Any, on: Sequence[int]) -> _T:
    """Call a function in a fresh process pinned to cores."""
    with _pool(on) as pool:
        return pool.submit(function, *arguments).result()


class Worker:
    """Hold a loaded side in a process of its own.

    Args:
        name: of the side.
        subject: what it runs.
        folder: of the prepared files.
        on: cores; as many threads.

    Attributes:
        note: of the fastest setting.
    """

    def __init__(self, name: str, subject: Subject, folder: Path, on: Sequence[int]) -> None:
        self._executor = _pool(on)
        try:
            self.note: str = self._executor.submit(_begin, name, subject, folder, len(on)).result()
        except BaseException:
            self.close()
            raise

    def turn(self, seconds: float) -> list[float]:
        """Return the milliseconds of every run that begins within some seconds; at least one."""
        time.sleep(_REST)
        return self._executor.submit(_turn, seconds).result()

    def affinity(self) -> set[int]:
        """Return the cores that any thread of the process may use."""
        return self._executor.submit(_affinity).result()

    def close(self) -> None:
        """End the process."""
        self._executor.shutdown()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_chosen: list[Candidate] = []
"""In a worker's process: the setting that runs when it is its turn."""


def _begin(name: str, subject: Subject, folder: Path, threads: int) -> str:
    from tvm_export.latency import sample

    candidates = SIDES[name].load(subject, folder, threads)
    if len(candidates) > 1:
        candidates.sort(key=lambda candidate: min(sample(candidate.call, seconds=_TRIAL)))
    _chosen.append(candidates[0])
    return candidates[0].note


def _turn(seconds: float) -> list[float]:
    from tvm_export.latency import sample

    return sample(_chosen[0].call, seconds=seconds, warmup=2)


def _affinity() -> set[int]:
    tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    return set().union(*(os.sched_getaffinity(task) for task in tasks))


@dataclass(frozen=True)
class Times:
    """The runs of one side.

    Attributes:
        note: of the setting that ran.
        rounds: round -> milliseconds of its runs.
    """

    note: str
    rounds: tuple[tuple[float, ...], ...]

    @property
    def runs(self) -> list[float]:
        """All runs, in milliseconds."""
        return [run for turn in self.rounds for run in turn]


def take_turns(
    names: Sequence[str], subject: Subject, folder: Path, on: Sequence[int], *, rounds: int, seconds: float
) -> dict[str, Times]:
    """Return the times of sides that take turns, so that a machine that slows down slows all alike.

    Args:
        names: of the sides.
        subject: what they run.
        folder: of the prepared files.
        on: cores, one thread each.
        rounds: how often each has its turn.
        seconds: of a turn.

    Raises:
        HawqError: a side has left its cores.
    """
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, subject, folder, on)) for name in names}
        found = [{name: worker.turn(seconds) for name, worker in workers.items()} for _ in range(rounds)]
        for name, worker in workers.items():
            if not worker.affinity() <= set(on):
                raise HawqError(
                    f"{name} was to run on cores {list(on)}, but its threads may use {sorted(worker.affinity())}: "
                    "its times do not compare; leave it out, or give --threads all cores"
                )
        return {
            name: Times(worker.note, tuple(tuple(turns[name]) for turns in found)) for name, worker in workers.items()
        }


def ratios(times: Mapping[str, Times], reference: str) -> dict[str, float]:
    """Return by how much each side is slower: the median, over the rounds, of its median over the reference's."""
    return {
        name: median(median(own) / median(base) for own, base in zip(side.rounds, times[reference].rounds, strict=True))
        for name, side in times.items()
    }
