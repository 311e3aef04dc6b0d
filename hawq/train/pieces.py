"""Compute the pieces of an optimisation step on one or several processes, with the same bits on any number of them.

Every piece begins from the state of the network at the step's start. What the pieces come to is put together in their
order on every process alike: gradients are added one after the other, observed states are merged. So the result is a
function of the pieces and not of who computes them.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from hawq.distributed import World
from hawq.train.merge import ObservedState

__all__ = ["Pieces"]


class Pieces:
    """Share the pieces of every step between the processes.

    Args:
        model: its gradients and its observed state are what a step leaves.
        world: the processes.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        self._parameters, self._state, self._world = list(model.parameters()), ObservedState(model), world

    def run(self, count: int, compute: Callable[[int], float]) -> float:
        """Compute all pieces of a step; gradients, which are None before, become those of the whole step.

        Args:
            count: pieces of the step, on all processes together.
            compute: goes forward and backward through one of them and returns its share of the loss.

        Returns:
            The loss of the step.

        Raises:
            HawqError: on every process, what the first piece that failed raised.
        """
        if self._world.size == 1 and count == 1:
            return compute(0)
        before = self._state.read()
        rows = -(-count // self._world.size)
        states = before.new_empty((rows, len(before)))
        gradients = _Gradients(self._parameters, rows) if self._world.size > 1 else None

        def own() -> Iterator[tuple[float, list[bool]]]:
            for row, piece in enumerate(filter(self._world.owns, range(count))):
                self._state.write(before)
                loss = compute(piece)
                states[row] = self._state.read()
                # one process leaves them where they are: autograd adds those of the next piece to them
                yield loss, [] if gradients is None else gradients.take(row)

        reports = self._world.share(own())
        self._state.merge(before, self._world.gather(states, count))
        if gradients is not None:
            gradients.install(self._world.gather(gradients.rows, count), [taken for _, taken in reports])
        return sum(loss for loss, _ in reports)


class _Gradients:
    """Hold the gradients of this process's pieces as rows, (rows, parameters).

    A parameter without a gradient has -0.0 there, to which every number can be added and stays what it is.
    """

    def __init__(self, parameters: list[nn.Parameter], rows: int) -> None:
        self._parameters = parameters
        self._sizes = [p.numel() for p in parameters]
        self.rows = torch.empty((rows, sum(self._sizes)), device=parameters[0].device)

    def take(self, row: int) -> list[bool]:
        """Move the gradients of a piece to its row; tell which parameters have one."""
        taken = []
        for p, part in zip(self._parameters, torch.split(self.rows[row], self._sizes), strict=True):
            taken.append(p.grad is not None)
            part.view_as(p).copy_(torch.full_like(p, -0.0) if p.grad is None else p.grad)
            p.grad = None
        return taken

    def install(self, found: list[Tensor], taken: list[list[bool]]) -> None:
        """Give every parameter the sum of its gradients in all pieces, in their order."""
        sums = found[0].clone()
        for row in found[1:]:
            sums += row
        parts, given = torch.split(sums, self._sizes), map(any, zip(*taken, strict=True))
        for p, part, has_one in zip(self._parameters, parts, given, strict=True):
            if has_one:
                p.grad = torch.empty_like(p).copy_(part.view_as(p))  # laid out as autograd does
