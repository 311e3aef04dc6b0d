"""Share bits, or bins, out among channels (ACIQ, 1810.05723, section 5)."""

import torch
from torch import Tensor

__all__ = ["allocate_bins", "allocate_bits", "entropy"]

_MOST_BITS = 8
_MOST_BINS = 255
_TARGETS = (-16.0, 32.0)
_HALVINGS = 40


def _bins(spread: Tensor, bits: float) -> Tensor:
    """Return n 2^M a_i^(2/3) / sum_j a_j^(2/3), float64, (n,): how n channels share n 2^M bins out and err least.

    Args:
        spread: a, of each channel, not negative, (n,).
        bits: M.
    """
    share = spread.double() ** (2 / 3)
    return 2.0**bits * share / share.mean().clamp(min=torch.finfo(torch.float64).tiny)


def allocate_bits(spread: Tensor, mean: float) -> Tensor:
    """Return the bits of each channel, int64, (n,), 0 or 2 to 8: log2 of its bins, rounded.

    Rounding moves the mean, so M is sought with which it is closest to the wanted one; bits rise with M. Symmetric
    codes of one bit would have but zero: such a channel gets two.

    Args:
        spread: of each channel, not negative, (n,).
        mean: of the bits, any number from 0 to 8.
    """
    found, (low, high) = [], _TARGETS
    for _ in range(_HALVINGS):
        target = (low + high) / 2
        bits = torch.round(_bins(spread, target).clamp(min=0.5).log2()).clamp(0, _MOST_BITS).long()
        found.append(torch.where(bits == 1, 2, bits))
        low, high = (target, high) if float(found[-1].double().mean()) < mean else (low, target)
    return min(found, key=lambda bits: abs(float(bits.double().mean()) - mean))


def allocate_bins(spread: Tensor, bits: float) -> Tensor:
    """Return the bins of each channel, int64, (n,), 1 to 255, n 2^M in all but for rounding.

    Args:
        spread: of each channel, not negative, (n,).
        bits: M.
    """
    return torch.round(_bins(spread, bits)).clamp(1, _MOST_BINS).long()


def entropy(codes: Tensor) -> float:
    """Return -sum p log2 p of codes, bits a code, averaged over rows (R, n), each with a distribution of its own."""
    rates = []
    for row in codes:
        share = torch.unique(row, return_counts=True)[1] / row.numel()
        rates.append(-(share * share.log2()).sum())
    return float(torch.stack(rates).mean())
