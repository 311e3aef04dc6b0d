"""`lq-nets`: levels are all sums of K basis numbers, which a least-squares fit follows during training (1807.10029)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.percentile import thinned
from hawq.quantizers.registry import register_activation, register_weight
from hawq.quantizers.surrogates import substitute
from hawq.quantizers.threshold import ThresholdActivation, reached
from hawq.quantizers.weight import WeightQuantizer, channel_floor

__all__ = ["LevelTable", "LqNetsActivation", "LqNetsWeight", "code_vectors", "fit_basis", "start_basis"]

_SMALLEST = 2.0**-24
_EVEN_STEPS = (1.596, 0.9957, 0.5860, 0.3352, 0.1881)
"""Even steps of 2, 4, .. 32 levels that err least for normal values of variance 1 (Max 1960, table II)."""

_PULL = 1e-4
"""Weight of the former basis in a fit: it decides where the data do not, as for a level that no value has."""

_MOVE = 0.1
"""Share of a step's fit in the moving average of the basis."""

_FITS = 20
"""Alternations of coding and fitting at the start; the basis then moves by less than a percent."""


def code_vectors(bits: int, signed: bool) -> Tensor:
    """Return the vectors e_l, float32, (2^K, K): all combinations of -1 and 1, or of 0 and 1."""
    digits = (torch.arange(1 << bits)[:, None] >> torch.arange(bits)) & 1
    return (2 * digits - 1 if signed else digits).float()


@dataclass(frozen=True)
class LevelTable:
    """Hold the levels e_l . v of R bases in rising order, as integers on a fine scale: 127 or 255 for the largest.

    Attributes:
        codes: round(e_l . v / scale), float32, (R, L).
        scale: float32, (R,), positive.
        order: the l of every code, int64, (R, L).
    """

    codes: Tensor
    scale: Tensor
    order: Tensor

    @classmethod
    def of(cls, basis: Tensor, vectors: Tensor, top: int) -> "LevelTable":
        """Return the table of bases (R, K) and vectors (L, K), with `top` as the largest code."""
        levels, order = (basis.abs().clamp(min=_SMALLEST) @ vectors.T).sort(dim=1)
        scale = channel_floor(levels[:, -1]) / top
        return cls(torch.round(levels / scale[:, None]), scale, order)

    @property
    def thresholds(self) -> Tensor:
        """Midway between neighbours, float32, (R, L - 1)."""
        return (self.codes[:, :-1] + self.codes[:, 1:]) / 2 * self.scale[:, None]


def fit_basis(rows: Tensor, basis: Tensor, vectors: Tensor, top: int) -> Tensor:
    """Return the bases with the least squared error for the codes that the present ones give.

    v* = (B^T B / n + p I)^-1 (B^T x / n + p v), B the vectors of the codes, (n, K), and p = 1e-4.

    Args:
        rows: x, float32, (R, n).
        basis: v, float32, (R, K).
        vectors: e, float32, (L, K).
        top: largest code of the level tables.
    """
    table = LevelTable.of(basis, vectors, top)
    codes = reached(rows, table.thresholds[:, None]).long()
    chosen = vectors[table.order.gather(1, codes)].double()
    pull = _PULL * torch.eye(vectors.shape[1], dtype=torch.float64, device=rows.device)
    count = rows.shape[1]
    normal = chosen.mT @ chosen / count + pull
    target = chosen.mT @ rows.double()[..., None] / count + _PULL * basis.double()[..., None]
    solution: Tensor = torch.linalg.solve(normal, target)
    return solution[..., 0].float()


def start_basis(rows: Tensor, vectors: Tensor, top: int) -> Tensor:
    """Return the bases, (R, K), that alternations of coding and fitting find; the arguments are those of `fit_basis`.

    They begin with the even steps, of the rows' root mean square, that err least for normal values.
    """
    bits = vectors.shape[1]
    lowest = _EVEN_STEPS[bits - 1] / 2 if bool((vectors < 0).any()) else _EVEN_STEPS[bits]
    basis = rows.square().mean(1).sqrt()[:, None] * lowest * 2.0 ** torch.arange(bits, device=rows.device)
    for _ in range(_FITS):
        basis = fit_basis(rows, basis, vectors, top)
    return basis


@register_activation("lq-nets")
class LqNetsActivation(ThresholdActivation):
    """Follow the values of a tensor with a basis of K numbers; codes are entries of its level table.

    The moving average v <- 0.9 v + 0.1 v* takes the fit of every training batch. The gradient passes where x lies
    between the lowest level and the highest; it is zero outside.
    """

    widths = range(1, 5)

    basis: Tensor
    vectors: Tensor

    def __init__(self, bits: int, grid: ActivationGrid, options: QuantOptions) -> None:
        super().__init__(bits, grid, options)
        self.top = 127 if self.may_be_negative else 255
        self.register_buffer("basis", torch.ones(bits))
        self.register_buffer("vectors", code_vectors(bits, self.may_be_negative), persistent=False)

    def calibrate(self, value: Tensor) -> None:
        """Fit a basis to a batch, and keep the mean over the batches."""
        self._average(self.basis, start_basis(thinned(value)[None], self.vectors, self.top)[0])

    def observe(self, value: Tensor) -> None:
        """Move the basis towards the fit of this batch, from 65,000 of its values."""
        super().observe(value)
        fitted = fit_basis(thinned(value)[None], self.basis[None], self.vectors, self.top)
        self.basis.lerp_(fitted[0], _MOVE)

    def thresholds(self) -> Tensor:
        """Return the middles of neighbouring levels."""
        codes = self.codes()
        return (codes[:-1] + codes[1:]) / 2 * self.step()

    def codes(self) -> Tensor:
        """Return the level table, equal entries once."""
        levels: Tensor = torch.unique_consecutive(self._table().codes[0])
        return levels

    def step(self) -> Tensor:
        """Return the scale of the level table."""
        return self._table().scale[0]

    def quantize(self, value: Tensor) -> Tensor:
        """Return the nearest level of the table."""
        levels = self.codes() * self.step()
        nearest = levels[reached(value.detach(), self.thresholds()).long()]
        return substitute(nearest, value.clamp(levels[0], levels[-1]))

    def _table(self) -> LevelTable:
        return LevelTable.of(self.basis[None], self.vectors, self.top)


@register_weight("lq-nets")
class LqNetsWeight(WeightQuantizer):
    """Follow every row of weights with a basis of K numbers; levels are +-v_1 +- .. +- v_K.

    Bases are fitted to the weights at the start; every training step moves them, v <- 0.9 v + 0.1 v*. The gradient
    passes to the weights unchanged.
    """

    widths = range(1, 5)

    basis: Tensor
    vectors: Tensor

    def __init__(self, bits: int, weight: Tensor, options: QuantOptions) -> None:
        super().__init__(bits, weight, options)
        vectors = code_vectors(bits, signed=True).to(weight.device)
        self.register_buffer("basis", start_basis(self.rows(weight.detach()), vectors, 127))
        self.register_buffer("vectors", vectors, persistent=False)

    def row_scale(self, rows: Tensor) -> Tensor:
        """Return the scales of the level tables, float32, (R,)."""
        return self._table().scale

    def quantize(self, rows: Tensor) -> Tensor:
        """Return the nearest levels; a training step moves the bases first."""
        if self.training and torch.is_grad_enabled():
            self.basis.lerp_(fit_basis(rows.detach(), self.basis, self.vectors, 127), _MOVE)
        table = self._table()
        codes = table.codes.gather(1, reached(rows.detach(), table.thresholds[:, None]).long())
        return substitute(codes * table.scale[:, None], rows)

    def _table(self) -> LevelTable:
        return LevelTable.of(self.basis, self.vectors, 127)
