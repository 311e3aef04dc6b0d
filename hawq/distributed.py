"""Share work between the processes that torchrun starts; a single process is a world of one."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

__all__ = ["World", "world"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class World:
    """Know which process this is.

    Attributes:
        rank: of this process.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """Return the device of this process: `cuda` becomes the GPU that torchrun's LOCAL_RANK names."""
        return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and self.size > 1 else name

    def owns(self, index: int) -> bool:
        """Tell whether the piece of work with this index is this process's."""
        return index % self.size == self.rank

    def join(self, found: Mapping[int, _T]) -> dict[int, _T]:
        """Return what all processes found, by index in rising order: the same on every one of them."""
        if self.size == 1:
            return dict(sorted(found.items()))
        gathered: list[dict[int, _T] | None] = [None] * self.size
        dist.all_gather_object(gathered, dict(found))
        return dict(sorted(item for part in gathered if part for item in part.items()))

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the leader do a step before the others, who then find the files it wrote."""
        if self.size > 1 and not self.leads:
            dist.barrier()
        yield
        if self.size > 1 and self.leads:
            dist.barrier()


def world() -> World:
    """Return the world of this process; under torchrun connect to the others.

    What travels are a few numbers for each batch, as Python objects through gloo, whatever device computes them.

    Under torchrun every process computes with one thread unless OMP_NUM_THREADS says otherwise, so that the results do
    not depend on the number of processes.
    """
    if "WORLD_SIZE" not in os.environ:
        return World()
    if not dist.is_initialized():
        dist.init_process_group("gloo")  # only small Python objects travel
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return World(dist.get_rank(), dist.get_world_size())
