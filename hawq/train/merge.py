"""Make one state of those that the pieces of an optimisation step leave: ranges, running statistics, counters."""

from collections.abc import Callable, Sequence
from functools import singledispatch

import torch
from torch import Tensor, nn

from hawq.quantizers import ActivationQuantizer
from hawq.quantizers.minmax import MinMaxActivation

__all__ = ["ObservedState", "Rule", "greatest", "least", "mean", "rules", "total"]

Rule = Callable[[Tensor, Tensor], Tensor]
"""Turn a tensor before the step, (n,), and the same behind every piece, (pieces, n), into the one that stays, (n,)."""


def mean(before: Tensor, found: Tensor) -> Tensor:
    """Return the mean over the pieces; equal values stay what they are."""
    return found.sum(0) / len(found)


def total(before: Tensor, found: Tensor) -> Tensor:
    """Return what all pieces together counted."""
    return before + (found - before).sum(0)


def least(before: Tensor, found: Tensor) -> Tensor:
    """Return the minimum over the pieces."""
    return found.amin(0)


def greatest(before: Tensor, found: Tensor) -> Tensor:
    """Return the maximum over the pieces."""
    return found.amax(0)


@singledispatch
def rules(module: nn.Module) -> dict[str, Rule]:
    """Return how tensors of a module merge, by name; the others: floats by their mean, integers by their total.

    A kind of module for which that is wrong registers its own rules here.
    """
    return {}


@rules.register
def _(module: MinMaxActivation) -> dict[str, Rule]:
    return {"low": least, "high": greatest} if module.options.act_range_momentum < 0 else {}


class ObservedState:
    """Read, write and merge what a network observes in a forward pass: all buffers, and what a quantizer learns.

    The latter is part of it because a quantizer that saw no calibration finds its start in the first step. The state
    is a float64 vector, which holds float32 values and counters below 2^53 exactly.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tensors: list[Tensor] = []
        self._rules: list[Rule] = []
        for module in model.modules():
            owned = dict(module.named_buffers(recurse=False))
            if isinstance(module, ActivationQuantizer):
                owned |= dict(module.named_parameters(recurse=False))
            own = rules(module)
            for name, tensor in owned.items():
                self._tensors.append(tensor)
                self._rules.append(own.get(name, mean if tensor.is_floating_point() else total))

    @torch.no_grad()
    def read(self) -> Tensor:
        """Return the state, float64, (n,)."""
        parts = [tensor.flatten().double() for tensor in self._tensors]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    @torch.no_grad()
    def write(self, state: Tensor) -> None:
        """Give the network a state, float64, (n,)."""
        for tensor, part in zip(self._tensors, torch.split(state, self._sizes), strict=True):
            tensor.copy_(part.view_as(tensor))

    @torch.no_grad()
    def merge(self, before: Tensor, found: Sequence[Tensor]) -> None:
        """Give the network the state that several pieces of a step come to.

        Args:
            before: the state from which each piece began, float64, (n,).
            found: the state that each left, in the order of the pieces.
        """
        old, new = torch.split(before, self._sizes), torch.split(torch.stack(list(found)), self._sizes, 1)
        for tensor, rule, *states in zip(self._tensors, self._rules, old, new, strict=True):
            tensor.copy_(rule(*states).view_as(tensor))

    @property
    def _sizes(self) -> list[int]:
        return [tensor.numel() for tensor in self._tensors]
