"""Run what torchrun's processes run in threads of one process."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any, TypeVar

from torch import Tensor

from hawq.distributed import World

_T = TypeVar("_T")


@dataclass(frozen=True)
class ThreadWorld(World):
    """One thread of several; they exchange by a common list."""

    meeting: Barrier = field(default_factory=lambda: Barrier(1))
    table: list[Any] = field(default_factory=lambda: [None])

    def collect(self, value: _T) -> list[_T]:
        self.table[self.rank] = value
        self.meeting.wait(timeout=60)
        found = list(self.table)
        self.meeting.wait(timeout=60)
        return found

    def gather(self, own: Tensor, count: int) -> list[Tensor]:
        found = self.collect(own)
        return [found[index % self.size][index // self.size] for index in range(count)]


def on_each(size: int, work: Callable[[World], _T]) -> list[_T]:
    """Return what `work` returns in every world of this size, by rank."""
    meeting, table = Barrier(size), [None] * size
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, (ThreadWorld(rank, size, meeting, table) for rank in range(size))))
