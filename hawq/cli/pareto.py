"""Write the Pareto fronts of a search: `pareto.json` for programs, `pareto.png` and tables for people."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hawq.bitconfig import UnitBits
from hawq.cli.console import console, print_table
from hawq.errors import HawqError
from hawq.files import write_atomically, write_json
from hawq.runs import RunDir
from search.costs import Cost
from search.pareto import FrontPoint, pareto_fronts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hawq.sensitivity import Sensitivity
    from search.scheme import Scheme

__all__ = ["draw_fronts"]

_FORMAT, _VERSION = "hawq-pareto", 1
_LINE, _FOUND, _UNIFORM = "#3b6ea5", "#c8442c", "#444444"


@dataclass(frozen=True)
class _Mark:
    """Place a scheme beside the fronts: its costs in plain units and its sum of Omega."""

    costs: Mapping[str, float]
    objective: float


def draw_fronts(scheme: "Scheme", measured: "Sensitivity", run: RunDir) -> dict[str, Any]:
    """Trace the front of every cost, write and print it, and return what was written and the figure's path.

    Args:
        scheme: what the search found; it is marked in the figure, and so are `uniform8` and `uniform4`.
        measured: the sensitivities.
        run: where the files go.

    Raises:
        HawqError: a cost that is not known at 4 and 8 bits.
    """
    fronts = pareto_fronts(scheme.question, measured.omega)
    marks = _marks(scheme, measured)
    costs = scheme.question.costs
    body = _document(scheme.config.arch, measured, costs, fronts, marks)
    write_json(run.pareto, _FORMAT, _VERSION, body)
    figure = run.pareto.with_suffix(".png")
    write_atomically(figure, lambda path: _draw(path, scheme.config.arch, measured, costs, fronts, marks))
    for name, front in fronts.items():
        _print(costs, name, front)
    console.print(f"fronts: {run.pareto}, {figure}", soft_wrap=True)
    return {**body, "figure": str(figure)}


def _marks(scheme: "Scheme", measured: "Sensitivity") -> dict[str, _Mark]:
    marks = {scheme.config.scheme: _Mark(scheme.totals[scheme.config.scheme], scheme.solution.objective)}
    for width in (8, 4):
        try:
            objective = sum(measured.omega(unit, UnitBits(width, width)) for unit in scheme.solution.bits)
        except HawqError:
            continue  # --bits left this width out, so it was not measured
        marks[f"uniform{width}"] = _Mark(scheme.totals[f"uniform{width}"], objective)
    return marks


def _document(
    arch: str,
    measured: "Sensitivity",
    costs: Mapping[str, Cost],
    fronts: Mapping[str, Sequence[FrontPoint]],
    marks: Mapping[str, _Mark],
) -> dict[str, Any]:
    return {
        "arch": arch,
        "sensitivity": {"metric": measured.metric, "images": measured.images, "key": measured.key},
        "marks": {name: {"costs": dict(mark.costs), "objective": mark.objective} for name, mark in marks.items()},
        "fronts": {
            name: [
                {
                    "alpha": point.alpha,
                    "costs": dict(point.costs),
                    "objective": point.objective,
                    "bits": {unit: str(bits) for unit, bits in point.bits.items()},
                }
                for point in front
            ]
            for name, front in fronts.items()
        },
    }


def _print(costs: Mapping[str, Cost], name: str, front: Sequence[FrontPoint]) -> None:
    rows = []
    for point in front:
        counts = Counter(str(bits) for bits in point.bits.values())
        spread = ", ".join(f"{count} at {bits}" for bits, count in sorted(counts.items()))
        limit = "-" if point.alpha is None else f"{point.alpha:.4g}"
        figures = [f"{cost.scaled(point.costs[kind]):.4g}" for kind, cost in costs.items()]
        rows.append([limit, *figures, f"{point.objective:.4g}", spread])
    header = ["alpha", *(f"{kind} ({cost.symbol})" for kind, cost in costs.items()), "sum of Omega", "units, by bits"]
    print_table(
        f"Front of {name}: the least sum of Omega at each limit",
        header,
        rows,
        caption=f"alpha: the limit, as in --budget {name}0.5; repeated schemes left out",
    )


def _draw(
    path: Path,
    arch: str,
    measured: "Sensitivity",
    costs: Mapping[str, Cost],
    fronts: Mapping[str, Sequence[FrontPoint]],
    marks: Mapping[str, _Mark],
) -> None:
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context("default"):
        figure = Figure(figsize=(5.6 * len(fronts), 4.4), dpi=150, layout="constrained")
        for axes, (name, front) in zip(figure.subplots(1, len(fronts), squeeze=False)[0], fronts.items(), strict=True):
            _panel(axes, costs[name], front, marks)
        figure.suptitle(f"{arch}: least sensitivity for each cost ({measured.metric}, {measured.images} images)")
        # a date or version in the file would make two runs differ
        figure.savefig(path, format="png", metadata={"Software": None})


def _panel(axes: "Axes", cost: Cost, front: Sequence[FrontPoint], marks: Mapping[str, _Mark]) -> None:
    """Draw one front and the marked schemes; log scale unless a sum of Omega is 0."""
    across = [cost.scaled(point.costs[cost.name]) for point in front]
    middle = (across[0] + across[-1]) / 2
    axes.plot(across, [point.objective for point in front], "o-", color=_LINE, markersize=4, linewidth=1.2)
    for name, mark in marks.items():
        found = not name.startswith("uniform")
        place = (cost.scaled(mark.costs[cost.name]), mark.objective)
        color = _FOUND if found else _UNIFORM
        axes.plot(*place, "*" if found else "s", color=color, markersize=12 if found else 7, zorder=3)
        # the front falls, so that it is clear of marks above to the right and below to the left
        dear = place[0] > middle
        offset, side = ((-9, -9), "right") if dear else ((7, 7), "left")
        axes.annotate(name, place, offset, textcoords="offset points", ha=side, color=color, fontsize=9)
    heights = [*(point.objective for point in front), *(mark.objective for mark in marks.values())]
    axes.set_yscale("log" if min(heights) > 0 else "linear")
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel(f"{cost.name}, sum of all units ({cost.symbol})")
    axes.set_ylabel("sum of Omega")
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
