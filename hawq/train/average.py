"""Average the weights over the steps of a training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hawq.errors import HawqError

__all__ = ["Average"]


class Average:
    """Keep the exponential moving average of the parameters: mean <- decay * mean + (1 - decay) * parameter.

    Ranges and running statistics, which are averages themselves, are the network's own.

    Args:
        model: whose parameters are averaged; the average begins with them.
        decay: 0..1; 1 / (1 - decay) is the number of steps that count.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters, self._decay = dict(model.named_parameters()), decay
        self._mean = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the present parameters in."""
        for name, p in self._parameters.items():
            self._mean[name].lerp_(p, 1 - self._decay)

    @torch.no_grad()
    def install(self) -> None:
        """Replace the parameters by their averages."""
        for name, p in self._parameters.items():
            p.copy_(self._mean[name])

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replace the parameters by their averages for a while."""
        present = {name: p.detach().clone() for name, p in self._parameters.items()}
        self.install()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self._parameters.items():
                    p.copy_(present[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by name."""
        return dict(self._mean)

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Go on from averages.

        Raises:
            HawqError: they belong to other parameters.
        """
        if saved.keys() != self._mean.keys():
            raise HawqError("the checkpoint averages other weights than this network has; train it again")
        for name, mean in self._mean.items():
            mean.copy_(saved[name])
