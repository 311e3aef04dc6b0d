"""Share work between the processes that torchrun starts; a single process is a world of one."""

import atexit
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hawq.errors import HawqError, reason

__all__ = ["World", "world"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class World:
    """Know which process this is.

    Work is cut into pieces that are numbered; process r of n does the pieces r, r + n, r + 2n, ...

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

    def collect(self, value: _T) -> list[_T]:
        """Return what every process has, by rank; for small things, which travel pickled."""
        if self.size == 1:
            return [value]
        gathered: list[_T | None] = [None] * self.size
        with _peers():
            dist.all_gather_object(gathered, value)
        return gathered  # type: ignore[return-value]

    def join(self, found: Mapping[int, _T]) -> dict[int, _T]:
        """Return what all processes found, by index in rising order: the same on every one of them."""
        return dict(sorted(item for part in self.collect(dict(found)) for item in part.items()))

    def share(self, own: Iterable[_T]) -> list[_T]:
        """Return the results of all pieces of a work in their order, the same on every process.

        Args:
            own: results of this process's pieces, computed as they are asked for.

        Raises:
            HawqError: on every process, what the first of the pieces that failed raised.
        """
        found: dict[int, _T | HawqError] = {}
        index = self.rank
        try:
            for result in own:
                found[index] = result
                index += self.size
        except HawqError as error:
            found[index] = error
        results: list[_T] = []
        for either in self.join(found).values():
            if isinstance(either, HawqError):
                raise either
            results.append(either)
        return results

    def gather(self, own: Tensor, count: int) -> list[Tensor]:
        """Return a tensor for each of `count` pieces, in their order.

        Args:
            own: those of this process, (rows, ...), with as many rows on every process: unused ones hold anything.
            count: pieces of all processes together.
        """
        if self.size == 1:
            return list(own[:count])
        found = own.new_empty((self.size, *own.shape))
        with _peers():
            dist.all_gather(list(found), own)
        return [found[index % self.size, index // self.size] for index in range(count)]

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the leader do a step before the others, who then find the files it wrote."""
        if self.size > 1 and not self.leads:
            with _peers():
                dist.barrier()
        yield
        if self.size > 1 and self.leads:
            with _peers():
                dist.barrier()


@contextmanager
def _peers() -> Iterator[None]:
    """Say what it means when an exchange breaks.

    Raises:
        HawqError: it did.
    """
    try:
        yield
    except RuntimeError as error:
        raise HawqError(
            f"another process ended before its work was done ({reason(error)}); it says why if it could: start all of "
            "them again, a training with --resume"
        ) from error


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def world() -> World:
    """Return the world of this process; under torchrun connect to the others.

    Python objects and tensors on the CPU travel through gloo, tensors on a GPU through nccl; HAWQ_DIST_BACKEND names
    one that carries all of them.

    Under torchrun every process computes with one thread unless OMP_NUM_THREADS says otherwise, so that the results do
    not depend on the number of processes.
    """
    if "WORLD_SIZE" not in os.environ:
        return World()
    if not dist.is_initialized():
        usual = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(os.environ.get("HAWQ_DIST_BACKEND", usual))
        atexit.register(_leave)  # threads of gloo that outlive Python abort the process
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return World(dist.get_rank(), dist.get_world_size())
