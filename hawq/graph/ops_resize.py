"""Translate the resizing of maps."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from hawq.graph.builder import Builder, Ref, canonical
from hawq.graph.ir import Resize

__all__: list[str] = []

_DIGITS = 9
"""Decimals of a position that count; what is left of a whole number behind them is rounding."""


@canonical(F.interpolate)
def interpolate(
    b: Builder,
    input: Ref,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Ref:
    """Translate nearest and bilinear resizing; where every pixel comes from is read off resized coordinates."""
    if mode not in ("nearest", "nearest-exact", "bilinear") or antialias or len(input.shape) != 4:
        b.fail(
            f"resizes a tensor of shape {input.shape} with mode {mode!r}, antialias={antialias}; supported are "
            "nearest, nearest-exact and bilinear without antialias, of (N, C, H, W)"
        )
    axes = (torch.arange(length, dtype=torch.float64) for length in input.shape[2:])
    coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    how = (size, scale_factor, mode, align_corners, recompute_scale_factor)
    (rows, columns), *_ = F.interpolate(coordinates[None], *how)
    return b.emit(Resize(_positions(rows[:, 0]), _positions(columns[0])), (input,))


def _positions(coordinates: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(float(position), _DIGITS) for position in coordinates)
