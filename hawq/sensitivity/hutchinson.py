"""Estimate the Hessian trace of several blocks of parameters at once (Hutchinson; 1911.03852, 1912.07145)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from hawq.errors import HawqError

__all__ = ["Estimate", "Probing", "WeightedLoss", "block_traces"]

_PER_ROUND = 4
"""Probes between two looks at the error; each round computes every batch's gradient once."""

_TRUSTED = 8
"""Probes from which a standard error is believed; fewer often agree by chance."""


@dataclass(frozen=True)
class Probing:
    """Decide how many probes are drawn.

    Attributes:
        relative_error: stop (after 8 probes) when every block's standard error is at most this share of its |trace|,
            or of the mean |trace| of all blocks where that is larger: no block has to be known better than it matters.
        max_probes: stop here in any case.
        seed: of the probes.
    """

    relative_error: float = 0.1
    max_probes: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            HawqError: a target that is not positive, or no probes.
        """
        if not self.relative_error > 0 or self.max_probes < 1:
            raise HawqError(
                f"a relative error of {self.relative_error} and {self.max_probes} probes make no estimate; "
                "the error must be above 0 and the probes at least 1"
            )


@dataclass(frozen=True)
class Estimate:
    """Hold a mean over probes.

    Attributes:
        mean: the estimate.
        error: its standard error over the probes, for the given data; infinite after a single probe.
        probes: how many were drawn.
    """

    mean: float
    error: float
    probes: int


@dataclass(frozen=True)
class WeightedLoss:
    """A loss of one batch, computed anew at every call so that only one graph is in memory, and its share."""

    loss: Callable[[], Tensor]
    share: float


def block_traces(
    parameters: Mapping[str, Tensor],
    losses: Sequence[WeightedLoss],
    probing: Probing,
    on_probe: Callable[[int, float], None] = lambda probes, error: None,
) -> dict[str, Estimate]:
    """Estimate the trace of every block's Hessian from joint Hessian-vector products.

    One vector v of independent +-1 spans all blocks. H v is the gradient of g . v, and v_i . (H v)_i has the
    expectation Tr(H_ii): blocks off the diagonal contribute zero on average. For a diagonal Hessian a single probe is
    exact. Each batch gets its own vectors, which lowers the variance of their weighted sum.

    Args:
        parameters: block name -> leaf tensor that requires a gradient.
        losses: the batches; shares sum to 1. The Hessian is that of the weighted sum.
        probing: when to stop.
        on_probe: told the probes drawn so far and the largest relative error after every round.

    Returns:
        Block name -> trace, in the order of `parameters`.

    Raises:
        HawqError: no batches, or a product is not finite.
    """
    if not losses:
        raise HawqError("a Hessian needs at least one batch of data; given none")
    generator = torch.Generator().manual_seed(probing.seed)
    samples: list[list[float]] = []
    estimates: dict[str, Estimate] = {}
    while len(samples) < probing.max_probes:
        count = min(_PER_ROUND, probing.max_probes - len(samples))
        batches = [_products(list(parameters.values()), part, count, generator) for part in losses]
        total = torch.stack(batches).sum(0)
        if not bool(torch.isfinite(total).all()):
            raise HawqError("the loss has no finite Hessian here; check the weights and the images for NaN or infinity")
        samples += total.tolist()
        columns = torch.tensor(samples, dtype=torch.float64)
        estimates = {name: _estimate(columns[:, i]) for i, name in enumerate(parameters)}
        worst = _worst_error(list(estimates.values()))
        on_probe(len(samples), worst)
        if worst == 0 or (worst <= probing.relative_error and len(samples) >= _TRUSTED):
            break
    return estimates


def _worst_error(estimates: Sequence[Estimate]) -> float:
    """Return the largest standard error relative to the block's |trace|, or to the mean |trace| if that is larger."""
    typical = sum(abs(estimate.mean) for estimate in estimates) / len(estimates) if estimates else 0.0
    errors = (estimate.error / max(abs(estimate.mean), typical) for estimate in estimates if estimate.error)
    return max(errors, default=0.0)


def _products(parameters: list[Tensor], part: WeightedLoss, count: int, generator: torch.Generator) -> Tensor:
    """Return share * v_i . (H v)_i, float64, (count, blocks)."""
    gradients = torch.autograd.grad(part.loss(), parameters, create_graph=True, materialize_grads=True)
    curved = [gradient for gradient in gradients if gradient.requires_grad]
    rows = []
    for probe in range(count):
        vectors = [_signs(parameter, generator) for parameter in parameters]
        directions = [v for v, gradient in zip(vectors, gradients, strict=True) if gradient.requires_grad]
        products: Sequence[Tensor] = (
            torch.autograd.grad(curved, parameters, directions, retain_graph=probe + 1 < count, materialize_grads=True)
            if curved
            else [torch.zeros_like(parameter) for parameter in parameters]
        )
        rows.append(torch.stack([(v.double() * hv).sum() for v, hv in zip(vectors, products, strict=True)]))
    return part.share * torch.stack(rows).detach().cpu()


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return independent +1/-1 of the shape of a tensor; drawn on the CPU, so that every device gets the same."""
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)


def _estimate(samples: Tensor) -> Estimate:
    count = samples.numel()
    error = float(samples.std()) / sqrt(count) if count > 1 else float("inf")
    return Estimate(float(samples.mean()), error, count)
