"""Choose the optimizer, and keep what it remembers by the names of the parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from hawq.errors import HawqError
from hawq.train.notation import Choices

__all__ = ["OPTIMIZERS", "SGD", "AdamW", "Optimizer", "load_moments", "moments"]


class Optimizer(Protocol):
    """Build a torch optimizer."""

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return the optimizer of parameter groups that hold their own `weight_decay`; `lr` is set at every step."""


OPTIMIZERS: Choices[Optimizer] = Choices("optimizer")
"""Every optimizer by name."""


@OPTIMIZERS.register("sgd")
@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent; the weight decay is part of the gradient.

    Attributes:
        momentum: share of the last step that is kept.
        nesterov: look ahead by one momentum step.
    """

    momentum: float = 0.9
    nesterov: bool = False

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(groups, lr=0.0, momentum=self.momentum, nesterov=self.nesterov)


@OPTIMIZERS.register("adamw")
@dataclass(frozen=True)
class AdamW:
    """Adam with the weight decay apart from the gradient (1711.05101).

    Attributes:
        beta1: of the mean of the gradient.
        beta2: of the mean of its square.
        eps: added to the root of that.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(groups, lr=0.0, betas=(self.beta1, self.beta2), eps=self.eps)


def moments(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return what the optimizer remembers of every parameter, by name: independent of the groups."""
    return {
        name: {"kind": type(optimizer).__name__, **optimizer.state[p]}
        for name, p in model.named_parameters()
        if p in optimizer.state
    }


def load_moments(optimizer: torch.optim.Optimizer, model: nn.Module, saved: Mapping[str, dict[str, Any]]) -> None:
    """Give the optimizer back what `moments` returned; its groups stay as they are.

    Raises:
        HawqError: it was another kind of optimizer, or the parameters have other names.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    ordered = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    if not set(saved) <= set(ordered):
        raise HawqError("the checkpoint's optimizer knows other parameters than this network has; train it again")
    kinds = {state["kind"] for state in saved.values()} - {type(optimizer).__name__}
    if kinds:
        raise HawqError(f"the checkpoint was trained with {', '.join(kinds)}: resume with the same --optimizer")
    states = {name: {key: value for key, value in state.items() if key != "kind"} for name, state in saved.items()}
    groups = optimizer.state_dict()["param_groups"]
    by_index = {index: states[name] for index, name in enumerate(ordered) if name in states}
    optimizer.load_state_dict({"state": by_index, "param_groups": groups})
