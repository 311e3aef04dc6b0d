"""Draw what `hawq analyze` found: the sweep above, the noise of every unit below."""

from pathlib import Path
from typing import TYPE_CHECKING

from hawq.analysis import Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_KINDS = {
    "weights, clipped": "#1f3f66",
    "weights, rounded": "#7fa8d1",
    "input, clipped": "#8a2f1c",
    "input, rounded": "#e59a83",
}
_LEAST = 1e-7


def draw(path: Path, title: str, found: Analysis) -> None:
    """Write a PNG; units lie from left to right in the order of the network."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context("default"):
        width = max(7.0, 2.5 + 0.32 * len(found.units))
        figure = Figure(figsize=(width, 8.2), dpi=150, layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        _sweep(above, found)
        _noise(below, found)
        below.set_xticks(range(len(found.units)), [_short(name) for name in found.units], rotation=90, fontsize=7)
        figure.suptitle(f"{title}: units quantized alone, {found.images} images", fontsize=10)
        # a date or version in the file would make two runs differ
        figure.savefig(path, format="png", metadata={"Software": None})


def _sweep(axes: "Axes", found: Analysis) -> None:
    """Draw KL of each unit at each width, log scale, and of the scheme itself as crosses."""
    from matplotlib import colormaps

    places = range(len(found.units))
    widths = list(next(iter(found.units.values())).sweep)
    for index, width in enumerate(widths):
        values = [max(unit.sweep[width].kl, _LEAST) for unit in found.units.values()]
        color = colormaps["viridis"](0.9 * index / max(1, len(widths) - 1))
        axes.plot(places, values, "o-", color=color, markersize=4, linewidth=1, label=f"{width} bits")
    own = [max(unit.alone.kl, _LEAST) for unit in found.units.values()]
    axes.plot(places, own, "x", color="#c8442c", markersize=7, label="the scheme", zorder=3)
    axes.set_yscale("log")
    axes.set_ylabel("KL of the logits (nats)")
    axes.grid(True, axis="y", color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=8, ncols=len(widths) + 1, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)


def _noise(axes: "Axes", found: Analysis) -> None:
    """Draw noise over signal of weights and input, clipping and rounding stacked, side by side for each unit."""
    labels = iter(_KINDS.items())
    for offset, operand in ((-0.2, "weight"), (0.2, "activation")):
        noises = [getattr(unit, operand) for unit in found.units.values()]
        bottom = [0.0] * len(noises)
        for kind in ("clipping", "rounding"):
            shares = [100 * getattr(noise, kind) / noise.signal if noise.signal else 0.0 for noise in noises]
            label, color = next(labels)
            places = [index + offset for index in range(len(noises))]
            axes.bar(places, shares, width=0.38, bottom=bottom, label=label, color=color)
            bottom = [low + share for low, share in zip(bottom, shares, strict=True)]
    axes.set_ylabel("noise over signal (%), of the scheme")
    axes.grid(True, axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)


def _short(name: str) -> str:
    """Return the end of a long name, which tells units apart."""
    return name if len(name) <= 32 else "..." + name[-29:]
